"""What every store of artifacts promises, held by the folder and by a real S3 server alike."""

import os
import time
import uuid

import pytest

from gateway.artifacts import ArtifactsUnavailable, open_store
from gateway.artifacts.artifact import day_of
from gateway.ids import new_id
from gateway.pictures.picture import Picture
from tests.support.made_pictures import encoded, picture

DAY = 86_400
MISSING = "img_06h4x1m0vyq4e8r2c6d9f3n5kt.png"


@pytest.fixture(params=["folder", "s3"])
async def store(request, tmp_path):
    """Each kind of store, empty, keeping artifacts for an hour."""
    url = None
    if request.param == "s3":
        endpoint = request.getfixturevalue("s3_server")
        url = s3_url(endpoint)
    opened = open_store(url, tmp_path / "artifacts", 3600)
    yield opened
    await opened.close()


def s3_url(endpoint: str, secret: str = "testsecret") -> str:
    options = f"endpoint={endpoint}&region=us-east-1&access_key_id=testkey&secret_access_key={secret}"
    return f"s3://pictures/{uuid.uuid4().hex}/nested?{options}"


async def read(store, artifact_id: str) -> bytes | None:
    stored = await store.open(artifact_id)
    if stored is None:
        return None
    data = b"".join([chunk async for chunk in stored.chunks])
    assert len(data) == stored.size
    return data


async def test_put_then_open_gives_bytes(store, image):
    """What was put comes back byte for byte, described as it is."""
    artifact = await store.put(image)
    assert await read(store, artifact.id) == await image.blob.read()
    assert (artifact.format, artifact.width, artifact.height) == ("png", 24, 16)
    assert artifact.size == image.blob.size
    assert artifact.expires - artifact.created == 3600
    assert abs(artifact.created - time.time()) < 60


async def test_artifact_outlives_its_spool(store, image, spool):
    """The artifact stays when the spool it came from is closed."""
    data = await image.blob.read()
    artifact = await store.put(image)
    await spool.close()
    assert await read(store, artifact.id) == data


async def test_large_picture_in_several_parts(store, picture_converter, spool):
    """A picture of several upload parts and many chunks arrives whole."""
    data = encoded(picture(), "jpeg") + os.urandom(12_000_000)
    found = await picture_converter.probe(await spool.blob(data))
    artifact = await store.put(found)
    assert await read(store, artifact.id) == data


@pytest.mark.parametrize("name", ["../secrets", "img_x.png", "", MISSING, f"img_{'7' * 26}.png", MISSING + ".exe"])
async def test_unknown_names_are_missing(store, name):
    """A name that is no artifact's, or names none that is stored, opens nothing and is deleted without complaint."""
    assert await store.open(name) is None
    await store.delete(name)


async def test_deleted_artifact_is_missing(store, image):
    """A deleted artifact is gone, and deleting it again is harmless."""
    artifact = await store.put(image)
    await store.delete(artifact.id)
    await store.delete(artifact.id)
    assert await store.open(artifact.id) is None


async def test_wrong_bytes_are_missing(store, spool):
    """Bytes that are not what their name says are not served."""
    blob = await spool.blob(b"<html>not a picture</html>")
    artifact = await store.put(Picture(blob, "png", 1, 1, 1, False))
    assert await store.open(artifact.id) is None
    empty = await store.put(Picture(await spool.blob(b""), "webp", 1, 1, 1, False))
    assert await store.open(empty.id) is None


async def test_sweep_takes_only_expired(store, image):
    """A sweep removes what outlived its time, at its second, and nothing else."""
    first, second = await store.put(image), await store.put(image)
    assert await store.sweep(first.created + 3000) == 0
    assert await store.open(first.id) is not None
    assert await store.sweep(second.created + 3600 + 1) == 2
    assert await store.open(first.id) is None
    assert await store.sweep(second.created + 3600 + 1) == 0


async def test_sweep_in_later_days(store, image):
    """A sweep days later finds the folders of earlier days."""
    artifact = await store.put(image)
    assert await store.sweep(artifact.created + 40 * DAY) == 1
    assert await store.open(artifact.id) is None


async def test_empty_store_is_ready(store):
    """A store that takes bytes says so, and a sweep of an empty one removes nothing."""
    ready = await store.check()
    assert ready.is_writable
    assert ready.free is None or ready.free > 0
    assert await store.sweep(time.time()) == 0
    assert await store.sweep(time.time() + 9 * DAY) == 0


async def test_refused_credentials_are_reported(s3_server, image, tmp_path):
    """A store that refuses our key is unavailable, names no secret, and is not ready."""
    store = open_store(s3_url(s3_server, "wrong-secret"), tmp_path, 3600)
    name = f"{new_id('img')}.png"
    for call in (store.put(image), store.open(name), store.delete(name), store.sweep(time.time())):
        with pytest.raises(ArtifactsUnavailable) as refused:
            await call
        assert "wrong-secret" not in str(refused.value)
    ready = await store.check()
    assert not ready.is_writable
    assert ready.reason


async def test_artifact_has_its_media_type(s3_server, image, tmp_path):
    """In a bucket, an artifact carries its media type for whoever reads it there."""
    store = open_store(s3_url(s3_server), tmp_path, 3600)
    artifact = await store.put(image)
    found = await store._store.get_async(f"{day_of(artifact.id)}/{artifact.id}")
    assert found.attributes["Content-Type"] == "image/png"


async def test_usual_variables_configure_s3(s3_server, image, tmp_path, monkeypatch):
    """The AWS_* variables do what the query of the URL does."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testkey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store = open_store("s3://pictures", tmp_path, 3600)
    assert await read(store, (await store.put(image)).id) == await image.blob.read()


async def test_unreachable_store_is_not_ready(tmp_path, image):
    """A store that nobody answers for is reported within seconds, by what it is."""
    store = open_store(s3_url("http://127.0.0.1:9"), tmp_path, 3600)
    assert not (await store.check()).is_writable


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "pictures", "s3://", "s3://b?secret_word=hunter2", "file://host/x", "file:relative"]
)
def test_wrong_storage_urls_are_explained(url, tmp_path):
    """A storage URL that cannot work is refused, without the values of its query."""
    with pytest.raises(ValueError, match="storage URL") as refused:
        open_store(url, tmp_path, 60)
    assert "hunter2" not in str(refused.value)


async def test_file_url_is_a_folder(tmp_path, image):
    """A file: URL keeps artifacts in that folder."""
    artifact = await open_store(f"file://{tmp_path}/my%20pictures", tmp_path, 60).put(image)
    assert (tmp_path / "my pictures" / day_of(artifact.id) / artifact.id).is_file()


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_clouds_open_by_url(scheme, tmp_path):
    """Google's and Azure's URLs are understood, with their options in the query."""
    options = {"gs": "skip_signature=true", "az": "account_name=acme&account_key=c2VjcmV0"}[scheme]
    assert open_store(f"{scheme}://pictures/prefix?{options}", tmp_path, 60)
