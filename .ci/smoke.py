"""What a freshly installed wheel must do; run outside the repository, without TensorFlow."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# Before Keras, which would ask for TensorFlow: the backend that is there is taken.
import keras_vpgc

# isort: split
import keras

from keras_vpgc.training import CodebookTrainer

place = Path(keras_vpgc.__file__).resolve()
assert "site-packages" in place.parts, f"{place} is not what was installed"
assert keras_vpgc.__version__ == importlib.metadata.version("keras_vpgc")
assert place.with_name("py.typed").exists()
assert place.parent.joinpath("visualization", "study_page.html").exists()
assert importlib.util.find_spec("tests") is None, "the tests were installed too"
assert importlib.util.find_spec("tensorflow") is None, "this place has no TensorFlow"

vpgc = Path(sys.executable).with_name("vpgc")
for arguments in (["--version"], ["--help"], ["train", "--dry-run", "--preset", "vpgc_tiny"]):
    said = subprocess.run([vpgc, *arguments], capture_output=True, text=True, check=True)
    print(said.stdout.splitlines()[0])
said = subprocess.run([vpgc, "prepare", "no.mp4", "-o", "p"], capture_output=True, text=True)
assert said.returncode == 1 and "Traceback" not in said.stderr, said.stderr
print(said.stderr.strip())

images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
autoencoder = keras_vpgc.models.PortraitAutoencoder.from_preset("vpgc_tiny")
trainer = CodebookTrainer(autoencoder)
trainer.compile(learning_rate=1e-3)
trainer.fit(images, batch_size=2, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    autoencoder.save(f"{folder}/a.keras")
    again = keras.saving.load_model(f"{folder}/a.keras")
inputs = images[:1].astype("float32") / 127.5 - 1
np.testing.assert_allclose(
    *(keras.ops.convert_to_numpy(x(inputs)) for x in (autoencoder, again)), atol=1e-5
)
print(f"keras_vpgc {keras_vpgc.__version__} works on {keras.backend.backend()}.")
