"""Shared basis: anatomy names, study settings, atomic files, parallel maps, remote cohorts. Input: nothing. Output: names and tools."""
