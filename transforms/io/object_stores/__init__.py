"""One module for each kind of object store: all do what `protocol.ObjectStore` says."""
