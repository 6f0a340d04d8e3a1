# shellcheck shell=bash
# How the launch scripts read their options, and print or run their commands. Sourced after setup.sh, by bash 3.2 or newer.

[ "${BASH_SOURCE[0]}" != "$0" ] || {
  echo "error: arguments.sh is sourced by the scripts beside it, which have a --help of their own, as launch/quickstart.sh" >&2
  exit 2
}

dry_run= # set: commands are printed instead of run
overrides=()
option_config= # every training script has one

parse_arguments() { # parse_arguments "VALUED OPTIONS" "FLAGS" ARGUMENTS ...: sets option_NAME, overrides and dry_run
  local valued=" $1 " flags=" $2 dry-run " name value attached
  shift 2
  while [ $# -gt 0 ]; do
    name=$1 value='' attached=
    case "$1" in
    -h | --help) usage && exit 0 ;;
    --config.*=*) overrides[${#overrides[@]}]=$1 && shift && continue ;;
    --config.*) fail 2 "$1 needs a value, as in $1=VALUE" ;;
    --*=*) name=${1%%=*} value=${1#*=} attached=yes ;;
    --*) ;;
    *) fail 2 "unexpected argument \"$1\"; see --help" ;;
    esac
    name=${name#--}
    shift
    case "$valued" in *" $name "*)
      if [ -z "$attached" ]; then
        [ $# -gt 0 ] || fail 2 "--$name needs a value; see --help"
        value=$1
        shift
      fi
      [ -n "$value" ] || fail 2 "--$name is empty; see --help"
      printf -v "option_${name//-/_}" %s "$value"
      continue
      ;;
    esac
    case "$flags" in
    *" $name "*) [ -z "$attached" ] || fail 2 "--$name takes no value; see --help" ;;
    *) fail 2 "unknown option --$name; see --help" ;;
    esac
    [ "$name" != dry-run ] || dry_run=yes
    printf -v "option_${name//-/_}" yes
  done
}

require() { # require OPTION ...: one line about the first that is missing
  local name variable
  for name; do
    variable=option_${name//-/_}
    [ -n "${!variable:-}" ] || fail 2 "--$name is missing; see --help"
  done
}

require_count() { # require_count OPTION: it is a whole number from 1
  local variable=option_${1//-/_}
  case "${!variable}" in
  '' | *[!0-9]* | 0*) fail 2 "--$1 is ${!variable}; it must be a whole number from 1" ;;
  esac
}

check_config() { # the config file is there, or a config of that name
  local file=${option_config%%:*}
  [ -f "$file" ] || [ -f "configs/${file%.py}.py" ] || fail 2 "there is no config file $file"
}

config_name() { # "configs/x.py:gsm8k" -> "x_gsm8k"
  local name=${option_config##*/}
  name=${name/.py/}
  echo "${name/:/_}"
}

quote() { # the words as a shell reads them again
  local word line='' mark="'" escaped="'\\''"
  for word; do
    case "$word" in
    '' | *[!A-Za-z0-9_@%+=:,./-]*) word="'${word//$mark/$escaped}'" ;;
    esac
    line="$line${line:+ }$word"
  done
  printf '%s\n' "$line"
}

run() { # runs the command, or prints it
  if [ -n "$dry_run" ]; then quote "$@"; else "$@"; fi
}

need_command() { # need_command NAME HINT: only where commands are run
  [ -n "$dry_run" ] || command -v "$1" >/dev/null 2>&1 || fail 2 "$1 is not on PATH; $2"
}

topology_of() { # "v6e-8" -> "v6e:2x4", as adaspec_jax.plan wants it; nothing for what is not known here
  local generation chips
  case "$1" in
  v5litepod-* | v5e-*) generation=v5e ;;
  v6e-*) generation=v6e ;;
  *) return 0 ;;
  esac
  case "${1#*-}" in
  1) chips=1x1 ;; 4) chips=2x2 ;; 8) chips=2x4 ;; 16) chips=4x4 ;; 32) chips=4x8 ;; 64) chips=8x8 ;;
  128) chips=8x16 ;; 256) chips=16x16 ;; *) return 0 ;;
  esac
  echo "$generation:$chips"
}

suggest_plan() { # suggest_plan ACCELERATOR: before money is spent
  local topology plan=(python -m adaspec_jax.plan --config "$option_config")
  topology="$(topology_of "$1")"
  [ -z "$topology" ] || plan+=(--topology "$topology")
  echo "Before paying, see whether it fits: $(quote "${plan[@]}")" >&2
}

pack_checkout() { # pack_checkout FILE.tgz: the checkout without environments, caches and runs
  run tar -czf "$1" --exclude=./.git --exclude='./.venv*' --exclude=./runs --exclude=./.jax_cache --exclude=__pycache__ .
}
