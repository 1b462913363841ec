"""Examines: any agent with any model on a set of tasks, scored by rules that nobody can talk round, with intervals."""
