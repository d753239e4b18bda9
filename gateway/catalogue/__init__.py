"""The catalogue: the operator's YAML file, and the abilities, prices and rules that follow from it."""
