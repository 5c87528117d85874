#!/usr/bin/env bash
# One environment a library under FOLDER; the 5 GB of torch are stored once and lent to the others.
# make_envs.sh FOLDER [PYTHON]
set -euo pipefail
folder=${1:?say where the environments go: make_envs.sh FOLDER [PYTHON]}
python=${2:-python3}

get() { # NAME ARGUMENTS…: pip install into one environment
  "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

new() { # NAME: an environment that sees torch, after its own packages
  "$python" -m venv "$folder/$1"
  echo "$lent" > "$("$folder/$1/bin/python" -c "$where")/lent.pth"
}

where='import sysconfig; print(sysconfig.get_path("purelib"))'
"$python" -m venv "$folder/torch"
get torch torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 pillow==13.0.0 matplotlib==3.11.2
lent=$("$folder/torch/bin/python" -c "$where")

# faccent asks for more than it imports: kaleido, pyarrow, nbformat, and lucent==0.1.0, an unrelated package under the
# import name of torch-lucent. Hence --no-deps, and by name what it does import.
new faccent
get faccent ipywidgets==8.1.8
get faccent --no-deps faccent==1.0.3 kornia==0.4.1 einops==0.8.1 tqdm==4.67.1 \
  scipy==1.16.3 imageio==2.38.1 decorator==5.3.1

new dreamlens
get dreamlens --no-deps dreamlens==0.1.1

# horama imports einops and tqdm without asking for them.
new horama
get horama --no-deps horama==0.3.0 einops==0.8.1 tqdm==4.67.1
