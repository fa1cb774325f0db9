"""`tinyllm doctor` on a machine with a GPU."""

import pytest

from tinyllm.commands import doctor

pytestmark = pytest.mark.gpu


def test_doctor_names_each_gpu_with_its_memory():
    findings = list(doctor.graphics_cards())
    assert findings
    for finding in findings:
        assert finding.state == "ok", finding.found
        assert " GB, CuPy " in finding.found
