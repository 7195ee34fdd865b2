"""The simulator over real sockets, against raw clients that share no code with the product."""
