"""The steps that all jobs share: work on shards, progress, ledger."""
