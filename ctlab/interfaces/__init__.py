"""User interfaces: the command line, jobs, the workbench. Input: commands. Output: what the other packages make."""
