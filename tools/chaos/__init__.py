"""Faults on purpose: kills, damage, power cuts, full disks and rivals, against every command; see docs/chaos.md."""
