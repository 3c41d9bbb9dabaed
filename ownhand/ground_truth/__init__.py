"""Ground truth: pictures and their transcriptions, in the formats that people have."""
