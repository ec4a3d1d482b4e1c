"""Image transfer learning as a data-parallel Apache Beam job.

The rooms of the checkout's top level (`pipelines`, `transforms`, `trainer`, `reporting`) are linked in here, so that
all that is installed is `beam_retrain.*`: nothing of ours can stand in the way of other people's `trainer` or
`transforms`, nor theirs in ours. Import no room by its bare name: its modules would be loaded twice.
"""
