"""What an agent may do: bounded tools that treat what they read as data."""
