import errno
import json
import math

import numpy as np
import pytest

from tinyllm.errors import UserError
from tinyllm.files import DiskFull
from tinyllm.training.metrics import SAMPLES, MetricsLog, read_all_metrics, read_metrics, told


def strict(line):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_a_record_can_be_read_as_soon_as_it_was_appended(tmp_path):
    with MetricsLog(tmp_path / "new" / "run") as log:
        log.append({"step": 1, "split": "train", "loss_nats": 2.5})
        log.append({"step": np.int64(2), "split": "train", "loss_nats": np.float32(0.5)})
        assert read_metrics(tmp_path / "new" / "run") == [
            {"step": 1, "split": "train", "loss_nats": 2.5},
            {"step": 2, "split": "train", "loss_nats": 0.5},
        ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_what_json_cannot_say_is_null_and_named(tmp_path, value):
    with MetricsLog(tmp_path) as log:
        log.append({"step": 3, "loss_nats": value, "seconds": 1.0})
    record = strict((tmp_path / "metrics.jsonl").read_text())
    assert record == {"step": 3, "loss_nats": None, "seconds": 1.0, "not_finite": {"loss_nats": str(float(value))}}


def test_a_record_without_a_step_is_refused(tmp_path):
    with MetricsLog(tmp_path) as log, pytest.raises(ValueError, match="integer step"):
        log.append({"loss_nats": 1.0})


def test_rewind_drops_what_lies_beyond_and_goes_on(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(1, 6):
            log.append({"step": step, "split": "train"})
        log.append({"step": 5, "split": "validation"})
        log.rewind(3)
        log.append({"step": 4, "split": "again"})
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert read_metrics(tmp_path)[-1]["split"] == "again"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_rewind_keeps_every_byte_of_what_it_keeps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1,  "loss_nats": 1.10}\r\n{"step": 2}\n')
    with MetricsLog(tmp_path) as log:
        log.rewind(2)
        assert path.read_bytes() == b'{"step":1,  "loss_nats": 1.10}\r\n{"step": 2}\n'
        log.rewind(1)
    assert path.read_bytes() == b'{"step":1,  "loss_nats": 1.10}\r\n'


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b'{"step": 2}', b"\x00\x00\xff"])
def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + torn)
    assert read_metrics(tmp_path) == [{"step": 1}]
    with MetricsLog(tmp_path) as log:
        log.append({"step": 2})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("bad", [b'{"step": 2, "lo', b"\xff\xfe", b"[2]", b'{"loss_nats": 1}', b'{"step": true}', b""])
def test_a_bad_line_anywhere_else_is_refused_by_number(tmp_path, bad):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + bad + b'\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2 of ") as raised:
        read_metrics(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_no_file_yet_is_no_records_but_no_folder_is_a_mistake(tmp_path):
    assert read_metrics(tmp_path) == []
    with pytest.raises(UserError, match="not a folder"):
        read_metrics(tmp_path / "absent")


class FullFile:
    """In place of a log's file: takes only `room` bytes more, and then says that the disk is full."""

    def __init__(self, log, room):
        self.file, self.room = log.file, room
        self.close = log.file.close

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 5, 13, 20])
def test_what_the_disk_does_not_take_is_written_once_it_does(tmp_path, room):
    with MetricsLog(tmp_path) as log:
        log.append({"step": 1})
        file, log.file = log.file, FullFile(log, room)
        log.append({"step": 2})
        log.append({"step": 3})
        assert log.error.errno == errno.ENOSPC
        assert [record["step"] for record in log.records()] == [1, 2, 3]
        assert (tmp_path / "metrics.jsonl").stat().st_size == 12 + room
        log.file = file
        log.append({"step": 4})
        assert (log.error, log.pending) == (None, b"")
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4}\n'


@pytest.mark.parametrize("room", [0, 5, 13])
def test_what_waits_to_be_written_is_rewound_too(tmp_path, room):
    with MetricsLog(tmp_path) as log:
        log.append({"step": 1})
        log.file = FullFile(log, room)
        log.append({"step": 2})
        log.append({"step": 3})
        log.rewind(2)
        assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n'
        log.append({"step": 9})
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 9]


def test_a_rewind_that_the_disk_refuses_loses_nothing(tmp_path, monkeypatch):
    def full(path):
        raise DiskFull("the disk is full")

    with MetricsLog(tmp_path) as log:
        log.append({"step": 1})
        log.file = FullFile(log, 5)
        log.append({"step": 2})
        monkeypatch.setattr("tinyllm.training.metrics.atomic_write", full)
        with pytest.raises(DiskFull):
            log.rewind(1)
        log.append({"step": 3})
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]


def test_samples_are_kept_the_same_way(tmp_path):
    text = 'a\u2028b "quoted" \ud800 \x1b[31m\n'
    with MetricsLog(tmp_path, SAMPLES) as log:
        log.append({"step": 0, "prompt": "", "text": text})
        log.append({"step": 9, "prompt": "", "text": ""})
        log.rewind(0)
    assert read_metrics(tmp_path, SAMPLES) == [{"step": 0, "prompt": "", "text": text}]


def test_what_a_roll_back_took_back_is_left_out_and_can_be_read(tmp_path):
    lines = [("train", 1), ("train", 2), ("train", 3), ("roll-back", 4), ("train", 2), ("train", 3), ("train", 4)]
    with MetricsLog(tmp_path) as log:
        for split, step in lines:
            log.append({"step": step, "split": split} | ({"to_step": 1} if split == "roll-back" else {}))
    assert [(r["split"], r["step"]) for r in read_all_metrics(tmp_path)] == lines
    standing, taken_back = told(read_all_metrics(tmp_path))
    assert standing == read_metrics(tmp_path)
    assert [(r["split"], r["step"]) for r in standing] == [lines[0], *lines[3:]]
    assert [(r["split"], r["step"]) for r in taken_back] == lines[1:4]
    with MetricsLog(tmp_path) as log:
        log.rewind(3, roll_backs=1)  # of a checkpoint after it
        assert [(r["split"], r["step"]) for r in read_all_metrics(tmp_path)] == lines[:6]
        log.rewind(2, roll_backs=0)  # of one before it
        assert [(r["split"], r["step"]) for r in read_all_metrics(tmp_path)] == lines[:2]
