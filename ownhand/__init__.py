"""ownhand teaches DeepSeek-OCR to read one person's own handwriting: the library behind the stages and the command.

Nothing is sent anywhere: hub telemetry is off before any library can read the setting.
"""

import logging
import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # imported on some CPUs, it recommends a download
