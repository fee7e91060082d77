"""Reads the images of a request into memory, and refuses what is too much."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import HTTPException, Request
from keras_flowers_runtime.files import printable_path
from keras_flowers_serving.limits import Limits, Share
from keras_flowers_serving.schemas import ImagesInJson
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

_MAX_NAME = 200
_MAX_FIELDS = 8


@dataclass(frozen=True)
class Upload:
    """A file that a client sent.

    Attributes:
        name: Its name without folders, on one line.
        data: Its content.
    """

    name: str
    data: bytes


class _MemoryParser(MultiPartParser):
    """Keeps every part in memory: nothing of a request touches the disk."""

    spool_max_size = 2**62
    is_complete = False

    def on_end(self) -> None:
        """Notes that the last boundary has come."""
        self.is_complete = True


async def read_uploads(request: Request, limits: Limits, share: Share) -> list[Upload]:
    """Returns the files of a request.

    Args:
        request: A multipart form with `files`, or JSON with `images`.
        limits: What it may use.
        share: Where its bytes are counted.

    Raises:
        HTTPException: With a status from 400 to 499 and the reason.
        BusyError: If all requests together use too much memory.
        starlette.requests.ClientDisconnect: If the client is gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send a multipart form with the field `files`, or JSON with `images`.",
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.request_bytes:
        raise _too_large(limits)
    stream = _limit(request, limits, share)
    if kind == "application/json":
        return await _read_json(stream, limits)
    return await _read_form(request, stream, limits)


async def _limit(
    request: Request, limits: Limits, share: Share
) -> AsyncGenerator[bytes, None]:
    """Yields the body; stops a client that sends too much or too slowly."""
    loop = asyncio.get_running_loop()
    begin, received = loop.time(), 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(limits.idle_seconds):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise _too_slow() from None
        if chunk is None:
            return
        received += len(chunk)
        if received > limits.request_bytes:
            raise _too_large(limits)
        seconds = loop.time() - begin
        if seconds > limits.grace_seconds and received < seconds * limits.min_rate:
            raise _too_slow()
        share.take(len(chunk))
        yield chunk


async def _read_form(
    request: Request, stream: AsyncGenerator[bytes, None], limits: Limits
) -> list[Upload]:
    async def require_end() -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not parser.is_complete:
            raise MultiPartException("The form ends early.")

    parser = _MemoryParser(
        request.headers, require_end(), max_files=limits.files, max_fields=_MAX_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, error.message) from error
    uploads = []
    for field in form.getlist("files"):
        if not isinstance(field, UploadFile):
            raise _bad("A part of `files` has no file name.")
        uploads.append(Upload(_clean(field.filename), await field.read()))
        await field.close()
    if not uploads:
        raise _bad("The form has no file in the field `files`.")
    return uploads


async def _read_json(
    stream: AsyncGenerator[bytes, None], limits: Limits
) -> list[Upload]:
    body = b"".join([chunk async for chunk in stream])
    # A large body takes a while; other requests go on meanwhile.
    return await asyncio.to_thread(_parse_json, body, limits)


def _parse_json(body: bytes, limits: Limits) -> list[Upload]:
    try:
        images = ImagesInJson.model_validate_json(body).images
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise _bad(f"{place}: {first['msg']}") from error
    if len(images) > limits.files:
        raise _bad(f"Too many files. Maximum number of files is {limits.files}.")
    uploads = []
    for index, image in enumerate(images):
        text = re.sub(r"^data:[^,]{0,200},", "", image.data)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _bad(f"images.{index}.data: not base64") from error
        uploads.append(Upload(_clean(image.name), data))
    return uploads


def _clean(name: str | None) -> str:
    """Returns the name of a file without folders, short and on one line."""
    last = re.split(r"[/\\]", name or "")[-1]
    return printable_path(last)[:_MAX_NAME] or "image"


def _bad(reason: str) -> HTTPException:
    return HTTPException(HTTPStatus.BAD_REQUEST, reason)


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request must have at most {limits.request_bytes:,} bytes.",
    )


def _too_slow() -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_TIMEOUT,
        "The request arrives too slowly.",
        {"Connection": "close"},
    )
