#!/usr/bin/env bash
# Both tables, after make_envs.sh FOLDER: run.sh FOLDER [PYTHON of the project] [arguments of cost.py]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?say where make_envs.sh put the environments}
ours=${2:-$here/../../.venv/bin/python}
export MPLBACKEND=Agg

for script in hygiene cost; do
  more=()
  if [ $script = cost ]; then more=("${@:3}"); fi
  "$ours" "$here/$script.py" xinc-captum "${more[@]}"
  for peer in faccent dreamlens horama; do
    "$folder/$peer/bin/python" -W ignore "$here/$script.py" $peer --rows-only "${more[@]}"
  done
  echo
done
