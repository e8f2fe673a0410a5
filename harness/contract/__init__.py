"""What plugins see: features, findings, protocols, specs, hooks, and the registry that loads them."""
