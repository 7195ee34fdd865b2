"""The parts of `pipeline audit`: what is asked of Postgres and of the exchanges, and how the answers are judged."""
