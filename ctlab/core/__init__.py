"""What every room leans on: the names of anatomy, the settings of a study, files that are whole or absent, work on many cores. Comes in: nothing. Goes out: names and tools."""
