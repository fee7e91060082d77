"""The JSON of requests and answers."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ImageInJson(BaseModel):
    """An image in the body of a JSON request."""

    model_config = ConfigDict(extra="forbid")
    data: str = Field(description="The file in base64; a `data:` URL also works.")
    name: str = Field(default="", description="What the answer calls the image.")


class ImagesInJson(BaseModel):
    """The body of a JSON request."""

    model_config = ConfigDict(extra="forbid")
    images: list[ImageInJson] = Field(min_length=1)


class ClassProbability(BaseModel):
    """A class and its probability."""

    name: str
    probability: float = Field(ge=0, le=1)


class HeatMap(BaseModel):
    """Which parts of an image speak for the predicted class."""

    method: Literal["grad_cam", "occlusion"]
    picture: str = Field(description="A `data:` URL of the image with the heat on it.")


class Result(BaseModel):
    """The answer for one image: a class, or why there is none."""

    name: str = Field(description="The file name from the request.")
    error: str | None = Field(default=None, description="Why the image cannot be used.")
    predicted: str | None = Field(default=None, description="The most probable class.")
    probability: float | None = Field(default=None, description="Its probability.")
    labels: list[ClassProbability] | None = Field(
        default=None,
        description="The labels of the image, best first; null if the model gives each "
        "image one class.",
    )
    unknown: bool | None = Field(
        default=None,
        description="Whether the image shows none of the classes; null if the model "
        "does not tell.",
    )
    top: list[ClassProbability] = Field(
        default_factory=list, description="The most probable classes, best first."
    )
    preview: str | None = Field(
        default=None, description="A `data:` URL of a small version, if asked for."
    )
    heatmap: HeatMap | None = None


class Answer(BaseModel):
    """The answer to a request, one result per image and in the same order."""

    results: list[Result]
    milliseconds: float = Field(description="From the complete upload to the answer.")


class ModelDescription(BaseModel):
    """The model that is served."""

    class_names: list[str]
    image_size: tuple[int, int] = Field(description="Height and width in pixels.")
    resize: Literal["stretch", "crop", "pad"]
    format: str
    precision: str
    temperature: float | None
    unknown_threshold: float | None
    thresholds: dict[str, float] | None = Field(
        description="The lowest probability of each label; null if the model gives "
        "each image one class."
    )
    finds_unknown: bool = Field(description="Whether answers say what is unknown.")
    heatmaps: Literal["grad_cam", "occlusion"]
    max_files: int = Field(description="Images in one request.")
    max_request_bytes: int
    versions: dict[str, str]


class Health(BaseModel):
    """That the server is up."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """Why a request failed."""

    detail: str
