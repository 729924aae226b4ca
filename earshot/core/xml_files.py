"""XML files of strangers."""

from pathlib import Path
from xml.etree import ElementTree

from earshot.core.errors import EarshotError
from earshot.core.untrusted import read_document

MAX_BYTES = 1 << 20  # of an annotation; those of VOC2007 have at most twenty thousand


def parse_xml(file: Path) -> ElementTree.Element:
    """The root of an annotation.

    Raises EarshotError for a file that is missing, no XML, longer than 1 MB or declares a document type (entities can
    grow without bound).
    """
    try:
        text = read_document(file, MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); restore the official Annotations") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise EarshotError(f"{file}: declares a document type, expected a plain annotation; restore the official file")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise EarshotError(f"{file}: is not XML ({error}); restore the official file") from None
