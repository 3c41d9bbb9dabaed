"""How readings become numbers: metrics, intervals, confidence, proofs, tables."""
