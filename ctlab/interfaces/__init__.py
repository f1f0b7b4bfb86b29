"""Where users come in. Comes in: a command. Goes out: everything the other rooms make."""
