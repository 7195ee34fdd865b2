"""How each exchange gives its bars by REST: a module of the same name as in `pipeline.exchanges`. Sans-I/O."""
