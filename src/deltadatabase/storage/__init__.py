"""Objects in S3, in a directory or in memory, behind one contract (``storage.base``)."""
