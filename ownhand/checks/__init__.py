"""The parts of the readiness report: each turns facts, which it can also gather, into findings."""
