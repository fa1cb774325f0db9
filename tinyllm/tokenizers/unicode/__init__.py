"""Which characters are letters, numbers, marks and white space, in one named version of Unicode."""
