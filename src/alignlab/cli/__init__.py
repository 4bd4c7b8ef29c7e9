"""Commands: `alignlab VERB METHOD --flag value`; flags are the fields of each method's Config."""
