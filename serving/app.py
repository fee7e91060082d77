"""The application: routes, documentation, and what happens to errors."""

import contextlib
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib import metadata, resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from keras_flowers_serving.access import Gate
from keras_flowers_serving.classifying import Classifier, Wishes
from keras_flowers_serving.limits import Budget, BusyError, Limits
from keras_flowers_serving.metrics import Metrics
from keras_flowers_serving.model import ServedModel
from keras_flowers_serving.schemas import (
    Answer,
    Health,
    ImageInJson,
    ModelDescription,
    Problem,
)
from keras_flowers_serving.uploads import read_uploads
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect
from starlette.routing import Route

_PAGES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request is malformed."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    408: {"model": Problem, "description": "The request arrives too slowly."},
    413: {"model": Answer, "description": "The request or the image is too large."},
    415: {"model": Answer, "description": "None of the files is an image."},
    422: {"model": Answer, "description": "None of the images can be decoded."},
    503: {"model": Problem, "description": "The server is busy; try again."},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": ImageInJson.model_json_schema(),
                        }
                    },
                }
            },
        },
    }
}


def create_app(
    model: ServedModel,
    *,
    token: str | None = None,
    loopback_only: bool = True,
    batch_size: int = 32,
    limits: Limits | None = None,
) -> FastAPI:
    """Creates the ASGI application that serves a model.

    Args:
        model: The model.
        token: What clients of the API must send as `Authorization: Bearer TOKEN`;
            `None` for nothing.
        loopback_only: Whether to answer only requests to a name of this machine.
        batch_size: The most images that the model classifies at once.
        limits: What requests may use; `None` for the defaults.
    """
    limits = limits or Limits()
    pending = Budget(limits.pending_bytes)
    metrics = Metrics(lambda: pending.used)
    # The gate checks the token; this shows it in the documentation.
    needs_token = [] if token is None else [Depends(HTTPBearer(auto_error=False))]
    classifier = Classifier(model, limits, metrics, batch_size)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        classifier.close()

    app = FastAPIOffline(
        title="keras_flowers",
        summary="Classifies images.",
        version=metadata.version("keras-flowers"),
        lifespan=lifespan,
        redoc_url=None,
        favicon_url="/icon.svg",
    )

    @app.post(
        "/v1/classify",
        response_model=Answer,
        responses=_PROBLEMS,
        openapi_extra=_BODY,
        dependencies=needs_token,
        tags=["classify"],
    )
    async def classify(
        request: Request,
        top: Annotated[
            int, Query(ge=1, le=1000, description="Classes in each result.")
        ] = 5,
        preview: Annotated[
            bool, Query(description="Return a small version of each image.")
        ] = False,
        explain: Annotated[
            bool, Query(description="Return a heat map of each image.")
        ] = False,
    ) -> Response:
        """Classifies the images of a multipart form or of a JSON body.

        A file that is no usable image has an `error` in its result. If that is so for
        all files, the status says why.
        """
        with pending.share() as share:
            uploads = await read_uploads(request, limits, share)
            if explain and len(uploads) > limits.explained:
                raise HTTPException(
                    HTTPStatus.BAD_REQUEST,
                    f"At most {limits.explained} images can be explained at once.",
                )
            begin = time.perf_counter()
            status, results = await classifier.classify(
                uploads, Wishes(top, preview, explain)
            )
        seconds = time.perf_counter() - begin
        metrics.seconds.observe(seconds)
        answer = Answer(results=results, milliseconds=round(1000 * seconds, 1))
        return Response(answer.model_dump_json(), status, media_type="application/json")

    @app.get(
        "/v1/model",
        response_model=ModelDescription,
        responses={401: _PROBLEMS[401]},
        dependencies=needs_token,
        tags=["model"],
    )
    def describe_model() -> ModelDescription:
        """Describes the model: its classes, and what it takes."""
        return ModelDescription(
            class_names=list(model.class_names),
            image_size=model.image_size,
            resize=model.resize,
            format=model.format,
            precision=model.precision,
            temperature=model.temperature,
            unknown_threshold=model.unknown_threshold,
            thresholds=(
                None
                if model.thresholds is None
                else dict(zip(model.class_names, model.thresholds, strict=True))
            ),
            finds_unknown=(
                model.finds_unknown
                or model.unknown_threshold is not None
                or model.thresholds is not None
            ),
            heatmaps=model.method,  # type: ignore[arg-type]
            max_files=limits.files,
            max_request_bytes=limits.request_bytes,
            versions=dict(model.versions),
        )

    @app.get("/healthz", response_model=Health, tags=["operations"])
    async def check_health() -> Health:
        """Says that the server is up."""
        return Health()

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: _PROBLEMS[401]},
        dependencies=needs_token,
        tags=["operations"],
    )
    async def show_metrics() -> Response:
        """Shows what the server counts, in the text format of Prometheus."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    _add_pages(app)
    _handle_errors(app)
    known = {getattr(route, "path", "") for route in app.routes}

    def count(path: str, status: int) -> None:
        label = path if path in known else "other"
        metrics.requests.labels(label, str(status)).inc()

    app.add_middleware(Gate, token=token, loopback_only=loopback_only, count=count)
    return app


def _add_pages(app: FastAPI) -> None:
    """Adds the page for people and its files."""
    static = resources.files("keras_flowers_serving").joinpath("static")
    for path, (name, media_type) in _PAGES.items():
        page = Response(static.joinpath(name).read_bytes(), media_type=media_type)
        app.router.routes.append(Route(path, page))


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(BusyError)
    async def say_busy(_: Request, error: Exception) -> JSONResponse:
        del error
        return JSONResponse(
            {"detail": "The server is busy. Try again."},
            HTTPStatus.SERVICE_UNAVAILABLE,
            {"Retry-After": "1"},
        )

    @app.exception_handler(ClientDisconnect)
    async def answer_nobody(_: Request, error: Exception) -> Response:
        del error
        return Response(status_code=HTTPStatus.BAD_REQUEST)
