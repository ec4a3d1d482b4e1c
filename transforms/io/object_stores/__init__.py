"""One module per object store; each implements `base.ObjectStore`."""
