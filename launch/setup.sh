# shellcheck shell=bash
# The environment of the launch scripts: .venv in the checkout holds exactly requirements.lock. Sourced, from the
# checkout's root, by bash 3.2 or newer (macOS); set_up leaves a working "$venv_python", or exits with one line on stderr.

[ "${BASH_SOURCE[0]}" != "$0" ] || {
  echo "error: setup.sh is sourced by the scripts beside it, which have a --help of their own, as launch/quickstart.sh" >&2
  exit 2
}

torch_version=2.13.0

use_environment() { # use_environment DIR FILE ...: DIR is what set_up makes, from these requirements and -c constraints
  venv=$1
  venv_python=$venv/bin/python
  stamp=$venv/installed       # what was installed: equal to fingerprint_venv when there is nothing to do
  unfinished=$venv/unfinished # there while an installation runs, with its process ids; found later, it is made anew
  torch_note=$venv/torch-tried
  shift
  requirements=("$@")
}
use_environment .venv -r requirements.lock

# Packages come from the checkout, whatever directory a subprocess runs in.
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

fail() { # fail STATUS MESSAGE
  echo "error: $2" >&2
  exit "$1"
}

choose_python() { # prints the interpreter behind the newest suitable Python on PATH
  local name answer version path has_pip best_minor=0 best='' seen='' without_pip=''
  for name in python3.13 python3.12 python3.11 python3 python; do
    # A version manager's shim can be on PATH and yet run nothing; an active virtual environment hides its base.
    answer="$("$name" -c 'if True:
      import importlib.util as i, sys
      base = getattr(sys, "_base_executable", None) or sys.executable
      print("%d.%d" % sys.version_info[:2], "pip" if i.find_spec("ensurepip") else "nopip", base)' 2>/dev/null)" || continue
    read -r version has_pip path <<<"$answer"
    case "$version" in
    3.11 | 3.12 | 3.13)
      if [ "$has_pip" = nopip ] && ! prefer_uv; then
        without_pip=$version
      elif [ "${version#3.}" -gt "$best_minor" ]; then
        best_minor=${version#3.} best=$path
      fi
      ;;
    [0-9]*) case " $seen " in *" $version "*) ;; *) seen="$seen${seen:+ }$version" ;; esac ;;
    esac
  done
  if [ -n "$best" ]; then
    echo "$best"
  elif [ -n "$without_pip" ]; then
    fail 2 "Python $without_pip cannot make virtual environments here; install its venv package (Debian, Ubuntu: python$without_pip-venv) or uv"
  else
    fail 2 "Python 3.11, 3.12 or 3.13 is needed${seen:+ (found only $seen)}; install one and put it on PATH"
  fi
}

have_uv() { command -v uv >/dev/null 2>&1; }

prefer_uv() { # a caller who told only pip where packages come from gets pip
  have_uv || return 1
  [ -z "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}${PIP_NO_INDEX:-}" ] ||
    [ -n "${UV_DEFAULT_INDEX:-}${UV_INDEX:-}${UV_INDEX_URL:-}${UV_EXTRA_INDEX_URL:-}${UV_NO_INDEX:-}${UV_FIND_LINKS:-}" ]
}

fingerprint_venv() { # prints what the stamp must say; fails where .venv has no whole, suitable Python of its own
  "$venv_python" -I -c 'if True:
    import hashlib, os, sys, sysconfig
    whole = sys.prefix != sys.base_prefix and os.path.isdir(sysconfig.get_paths()["purelib"])
    if not whole or not (3, 11) <= sys.version_info[:2] < (3, 14):
        sys.exit(1)
    files = [name for name in sys.argv[1:] if not name.startswith("-")]
    lock = hashlib.sha256(b"".join(open(name, "rb").read() for name in files)).hexdigest()
    print("%s %s python %d.%d" % (" ".join(files), lock, *sys.version_info[:2]))' "${requirements[@]}" 2>/dev/null
}

setup_is_running() { # true while a process named in the unfinished file lives: another script, or what a killed one left
  local pid
  while read -r pid; do
    [ "$pid" = "$$" ] || ! ps -ww -p "$pid" -o args= 2>/dev/null | grep -Eq 'quickstart\.sh|test\.sh|local\.sh|-r requirements[.-]|torch==|jax\[' || return 0
  done 2>/dev/null <"$unfinished"
  return 1
}

wait_for_other_setup() {
  ! setup_is_running || echo "Another launch script is still setting up $venv; waiting for it" >&2
  while setup_is_running; do sleep 1; done
}

is_set_up() {
  local wanted
  wanted="$(fingerprint_venv)" && [ ! -e "$unfinished" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]
}

claim_venv() { # an empty .venv that says it is ours to fill; fails when another script has it, or has filled it meanwhile
  local tries=0 claimed=1
  until mkdir "$venv.claim" 2>/dev/null; do # held for milliseconds, so after seconds it is what a killed script left
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || rmdir "$venv.claim" 2>/dev/null || return 1
    sleep 0.1
  done
  if ! setup_is_running && ! is_set_up; then
    ! mv "$venv" "$venv.old.$$" 2>/dev/null || rm -rf "$venv.old.$$"
    mkdir "$venv" 2>/dev/null && echo $$ >"$unfinished" && claimed=0
  fi
  rmdir "$venv.claim"
  return "$claimed"
}

make_venv() { # fails when another script makes it
  local python
  python="$(choose_python)" || exit $?
  claim_venv || return 1
  echo "Making $venv with $python" >&2
  if ! prefer_uv || ! uv venv --quiet --allow-existing --python "$python" "$venv"; then
    "$python" -m venv "$venv" || fail 1 "$python -m venv $venv failed; its message is above"
  fi
}

recorded() { # runs a command; where there is an unfinished file its process id is in it, in case this script dies first
  sh -c '[ ! -e "$0" ] || echo $$ >>"$0"; exec "$@"' "$unfinished" "$@"
}

add_to_venv() { # add_to_venv COMMAND ...: .venv counts as half made while it installs, and as whole whatever came of it
  local status=0
  echo $$ >"$unfinished"
  "$@" || status=$?
  rm -f "$unfinished"
  return "$status"
}

tell_progress() { # pip's output as a line per ten packages, and one per large download
  local line found=0
  while IFS= read -r line; do
    case "$line" in
    "Collecting "*)
      found=$((found + 1))
      [ $((found % 10)) != 0 ] || echo "  $found packages found"
      ;;
    "  Downloading "*"("[0-9][0-9]*" MB)")
      line=${line#  Downloading }
      echo "  downloading ${line##*/}"
      ;;
    "Installing collected packages: "*) echo "  unpacking $found packages" ;;
    esac
  done >&2
}

drop_warnings() { # pip's messages without its warnings, hundreds where it dislikes a machine's settings
  local line
  while IFS= read -r line; do
    case "$line" in
    "WARNING: Retrying "*) echo "$line" ;;
    "WARNING: "* | "DEPRECATION: "* | "[notice] "*) ;;
    *) echo "$line" ;;
    esac
  done >&2
}

pip_install() ( # where to install is ours to say, everything else is the caller's; a subshell, for pipefail
  set -o pipefail
  "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null || exit
  { recorded env -u PIP_USER -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u PIP_PYTHON "$venv_python" -m pip install "$@" \
    2>&1 >&3 3>&- | drop_warnings; } 3>&1 | tell_progress
)

uv_install() { recorded uv pip install --python "$venv_python" "$@"; }

install_lock() {
  if prefer_uv; then
    uv_install "${requirements[@]}" && return
    echo "uv could not install everything; trying pip, which has settings of its own" >&2
  fi
  echo "Installing with pip; this takes a few minutes, once" >&2
  pip_install "${requirements[@]}"
}

set_up() {
  local wanted
  wait_for_other_setup
  if wanted="$(fingerprint_venv)" && [ ! -e "$unfinished" ]; then # in this order: another script may be at it
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    add_to_venv install_lock || # a refused update leaves what was there before
      fail 1 "could not install ${requirements[1]} into $venv; the installer's message is above"
  elif make_venv; then
    install_lock || fail 1 "could not install ${requirements[1]} into $venv; the installer's message is above"
    wanted="$(fingerprint_venv)" || fail 1 "the new $venv has no working Python"
  else
    sleep 1
    setup_is_running || fingerprint_venv >/dev/null || fail 1 "cannot make $PWD/$venv anew; remove it, and see that the checkout is writable"
    set_up
    return
  fi
  echo "$wanted" >"$stamp"
  rm -f "$unfinished"
}

install_either() { # with uv where it is preferred, else or failing that with pip
  { prefer_uv && uv_install "$@"; } || pip_install "$@"
}

set_up_accelerator() { # set_up_accelerator cuda13|tpu: jax's plugin for it, at the jax version that is installed
  local version
  version="$("$venv_python" -c 'import importlib.metadata as m; print(m.version("jax"))')" || fail 1 "$venv has no jax"
  [ "$(cat "$venv/with-$1" 2>/dev/null)" != "$version" ] || return 0
  echo "Installing jax[$1]==$version into $venv" >&2
  add_to_venv install_either -c constraints.txt "jax[$1]==$version" ||
    fail 1 "could not install jax[$1]==$version into $venv; the installer's message is above"
  echo "$version" >"$venv/with-$1"
}

set_up_tpu_compiler() { # libtpu beside the packages, for the tests that compile for TPUs: never fatal, and tried once
  # Not among them: jax on a machine without a TPU would look for one at every start, at length and aloud.
  local wanted new="$venv/tpu-compiler.$$"
  [ ! -e "$venv/tpu-compiler-tried" ] || return 0
  wanted="$("$venv_python" -c 'if True:
    import importlib.metadata as m
    print(next(line.split(";")[0] for line in m.requires("jax") if line.startswith("libtpu")))' 2>/dev/null)" || return 0
  echo "Looking for $wanted, for the tests that compile for TPUs (some 200 MB)" >&2
  mkdir -p "$new"
  if install_either --no-deps --target "$new" "$wanted" 2>/dev/null; then
    [ -e "$venv/tpu-compiler" ] || mv "$new" "$venv/tpu-compiler"
  else
    echo "No libtpu: the tests that compile for TPUs will skip" >&2
  fi
  : >"$venv/tpu-compiler-tried" # only now: cut short, it is tried again
  rm -rf "$new"
}

fetch_python() { # where no Python will do: uv, and a Python of uv's, in this user's home
  export PATH="$HOME/.local/bin:$PATH"
  ! (choose_python) >/dev/null 2>&1 || return 0
  echo "Fetching uv and Python 3.12" >&2
  if ! have_uv; then
    curl -LsSf https://astral.sh/uv/install.sh | env UV_NO_MODIFY_PATH=1 sh >&2 || fail 1 "could not install uv"
  fi
  uv python install --quiet 3.12 || fail 1 "uv could not install Python 3.12; its message is above"
}

has_torch() { "$venv_python" -c 'import importlib.util as i, sys; sys.exit(i.find_spec("torch") is None)'; }

brings_no_cuda() { # reads pip's installation report: true when it lists packages, and none of CUDA's
  "$venv_python" -c 'if True:
    import json, re, sys
    names = [package["metadata"]["name"].lower() for package in json.load(sys.stdin)["install"]]
    sys.exit(not names or any(re.match("nvidia|triton|pytorch.triton|cuda", name) for name in names))' 2>/dev/null
}

install_torch() { # pip first, because it may know local CPU wheels; else uv, which knows the CPU build's own index
  local report
  if report="$("$venv_python" -m pip install --dry-run --quiet --retries 1 --timeout "${PIP_DEFAULT_TIMEOUT:-20}" \
    --report - "torch==$torch_version" 2>/dev/null)" && brings_no_cuda <<<"$report"; then
    pip_install "torch==$torch_version" && return
  fi
  have_uv && UV_HTTP_RETRIES="${UV_HTTP_RETRIES:-1}" uv_install --quiet --torch-backend=cpu "torch==$torch_version" 2>/dev/null
}

set_up_torch() { # set_up_torch once|again: only for the parity tests, so never fatal, and tried once
  ! has_torch || return 0
  if [ "$1" = again ] || [ ! -e "$torch_note" ]; then
    echo "Looking for a CPU build of torch $torch_version, for the parity tests" >&2
    : >"$torch_note"
    add_to_venv install_torch || true
  fi
  has_torch || echo "No CPU build of torch: the parity tests will skip (\`bash launch/test.sh --torch\` looks again)" >&2
}
