"""`engine doctor`: failures that are known, in a log or on this machine."""
