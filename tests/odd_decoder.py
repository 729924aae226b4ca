"""The work of a decoding process with a fault; it imports nothing that starts programs, which the process may not."""

import ctypes
import os

from earshot.media import decoder_process, decoding
from earshot.media.decoder_process import Request, decode_request


def odd(prepare: str, request: Request) -> dict:
    """The work of a child whose decoder runs the code `prepare` before it decodes."""

    def decode_clip(file, options):
        exec(prepare, {"file": file, "ctypes": ctypes, "os": os})
        return decoding.decode_clip(file, options)

    decoder_process.decode_clip = decode_clip
    return decode_request(request)
