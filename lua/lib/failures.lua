-- Failures are counted as a sliding window is.
define[7] = define[2]
