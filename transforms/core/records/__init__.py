"""Records and the files that hold them: schema, TFRecord, CSV, shards, splits."""
