#!/bin/sh
# The whole job on a published file, with teacher and judge behind a real OpenAI-compatible server on this machine.
#
#   bench/real_input.sh conflictqa FILE [WORK_FOLDER]
#   bench/real_input.sh poisonedrag FILE [WORK_FOLDER]
#
# Needs `pip install -c constraints.txt -e '.[serve]'`, which `transformers serve` stands on. Trains a Qwen3-style and
# a GPT-2-style student, one teacher and one judge for minutes each (bench/real_input/students.py), serves the latter
# two, runs `alignlab run dialectical` for either student and keeps result.json, report.html and run.log under
# bench/results/real_input. A second call goes on where the first was stopped.
set -eu
name=$1 file=$2 work=${3:-$(mktemp -d)}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
port=${PORT:-8123}
mkdir -p "$work"

if [ "$name" = conflictqa ]; then
    # the questions with the shortest evidence, so that minutes on a processor are enough; records unchanged
    questions=16 kept="$work/conflictqa.jsonl"
    "$python" - "$file" "$kept" "$questions" <<'PY'
import json, sys
sides = ("parametric_memory", "parametric_memory_aligned_evidence", "counter_memory", "counter_memory_aligned_evidence")
with open(sys.argv[1], encoding="utf-8") as file:
    records = [(line, json.loads(line)) for line in file if line.strip()]
whole = [pair for pair in records if all((pair[1].get(side) or "").strip() for side in sides)]
whole.sort(key=lambda pair: sum(len(pair[1][side]) for side in sides))
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.writelines(line for line, _ in whole[:int(sys.argv[3])])
PY
else
    questions=14 kept="$work/$name.json"
    ln -sf "$(realpath "$file")" "$kept"
fi

trained() { # folder, then how: nothing is trained twice, and what was cut off does not count
    folder=$1 && shift
    [ -d "$folder" ] && return
    "$python" "$here/real_input/students.py" "$name:$kept" --questions "$questions" --output_dir "$folder.new" "$@"
    mv "$folder.new" "$folder"
}

for style in qwen3 gpt2; do
    trained "$work/$name-$style-student" --style "$style" --steps "${STUDENT_STEPS:-320}" --learning_rate 3e-3 --batch 24
done
trained "$work/$name-teacher" --teacher_of "$work/$name-qwen3-student" --steps "${TEACHER_STEPS:-400}" --learning_rate 2e-3
trained "$work/$name-judge" --judge_of "$work/$name-qwen3-student" --steps "${JUDGE_STEPS:-150}" --learning_rate 2e-3

HF_HUB_OFFLINE=1 "$bin/transformers" serve --port "$port" --device cpu > "$work/$name-server.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT INT TERM
until "$python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null; do sleep 1; done
at="base_url=http://127.0.0.1:$port/v1&concurrency=1&timeout=600"
for style in qwen3 gpt2; do
    out="$work/$name-$style-run"
    "$bin/alignlab" run dialectical --model "$work/$name-$style-student" --dataset "$name:$kept" --limit "$questions" \
        --teacher "openai:$work/$name-teacher?$at" --judge "openai:$work/$name-judge?$at" \
        --probes 10 --search_per_cell 2 --train_per_cell 20 --test_per_cell 50 --sft_steps "${SFT_STEPS:-20}" \
        --dpo_steps "${DPO_STEPS:-10}" --use_peft false --batch 16 --learning_rate 3e-4 --dpo_learning_rate 1e-4 \
        --max_tokens 160 --output_dir "$out"
    mkdir -p "$here/results/real_input/$name-$style"
    cp "$out/result.json" "$out/report.html" "$out/run.log" "$here/results/real_input/$name-$style/"
done
