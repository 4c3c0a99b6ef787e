"""Which projects the shipped model learns from, and which it never sees. Names only: licences are read, not assumed.

The split is by project: code of one project resembles itself far more than code of another.
"""

from __future__ import annotations

from typing import Literal, get_args

Split = Literal["train", "validation", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)

STANDARD_LIBRARY = "python-standard-library"

HELD_OUT = [
    "arrow",
    "bottle",
    "boltons",
    "httpx",
    "imageio",
    "lark",
    "marshmallow",
    "mistune",
    "peewee",
    "structlog",
    "tenacity",
    "tinydb",
]
"""For the evaluation report: an HTTP client, a web framework, parsers, an ORM, a database, dates, images, utilities."""

VALIDATION = ["invoke", "plumbum", "starlette", "voluptuous"]
"""For the loss that is watched while training."""

_WEB = """
django flask werkzeug jinja2 aiohttp tornado twisted requests urllib3 fastapi uvicorn gunicorn falcon sanic quart
websockets itsdangerous djangorestframework flask-sqlalchemy wtforms scrapy parsel beautifulsoup4 markdown httpcore
oauthlib
"""
_DATA = """
numpy pandas scipy scikit-learn matplotlib sympy networkx statsmodels dask xarray bokeh seaborn plotly nltk gensim
spacy transformers joblib pillow scikit-image
"""
_STORAGE = """
sqlalchemy celery kombu redis pymongo boto3 botocore fsspec google-api-core pymysql sqlparse sqlglot kafka-python
cryptography
"""
_TOOLS = """
pytest hypothesis attrs pydantic rich textual click black mypy jedi parso docutils sphinx pip setuptools hatchling
virtualenv tox nox poetry poetry-core wheel build packaging platformdirs pygments ipython ipykernel jupyter-client
notebook nbconvert traitlets coverage pluggy isort flake8 bandit pre-commit prompt-toolkit tqdm psutil python-dateutil
babel simpy pexpect watchdog loguru apscheduler luigi mkdocs cookiecutter dynaconf omegaconf jsonschema pyyaml tomlkit
msgpack pyparsing aiofiles anyio trio locust faker freezegun responses graphql-core openpyxl mako
"""

TRAIN = sorted(f"{_WEB} {_DATA} {_STORAGE} {_TOOLS}".split())
"""Well-known projects of many kinds."""

NAMES: dict[Split, list[str]] = {"train": TRAIN, "validation": VALIDATION, "held_out": HELD_OUT}
