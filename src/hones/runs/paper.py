"""The configurations of the paper's table (Wang, Hu, Jiang, Findings of ACL 2026): what `hones init --paper` writes.

Both models are run alike, but for the number of critical heads. A line that says `ours` holds what neither the paper
nor its release says.
"""

from dataclasses import dataclass

from hones.errors import HonesError

COCO = (
    "hones data coco --captions captions_train2014.json --questions v2_OpenEnded_mscoco_train2014_questions.json",
    "    --annotations v2_mscoco_train2014_annotations.json --text COCO_Text.json --images train2014 --to coco",
)


@dataclass(frozen=True)
class Published:
    """What the paper says of one model. built_in: of the same family. figures: what was found there.

    chat_template: the words in which it was asked, where they are not the model's own.
    """

    name: str
    model: str
    built_in: str
    critical: int
    heads: str
    neurons: str
    figures: tuple[str, ...]
    chat_template: str | None = None


LLAVA = Published(
    name="llava-1.5-7b",
    model="llava-hf/llava-1.5-7b-hf",
    built_in="tiny-llava",
    critical=30,
    heads="32 x 32",
    neurons="3,523 of 352,256",
    figures=(
        "masking HONES's neurons costs 27.30 / 19.00 / 19.80 / 7.43 % of the metric (vqa / ocr / caption / retrieval),",
        "  those of ap 11.33 / 10.40 / 8.65 / 0.50, ma 6.82 / 15.50 / 11.90 / 1.35, ape 3.20 / -1.87 / 12.20 / 0.90;",
        "steering raises .652 / .576 / .129 / .933 to .673 / .602 / .141 / .963, one searched factor to",
        "  .666 / .594 / .132 / .956",
    ),
    chat_template="llava-1.5",
)
QWEN = Published(
    name="qwen2.5-vl-7b",
    model="Qwen/Qwen2.5-VL-7B-Instruct",
    built_in="tiny-qwen2.5-vl",
    critical=25,
    heads="28 x 28",
    neurons="5,304 of 530,432",
    figures=("masking HONES's neurons costs 21.91 % of the metric, the mean of the four tasks",),
)
PAPER = {one.name: one for one in (LLAVA, QWEN)}

TEXT = """\
# The paper's table on {name} (Wang, Hu, Jiang, Findings of ACL 2026, arXiv 2604.17941), for `hones run`.
# What neither the paper nor its release says is marked `ours`. This project has not run it on these weights.
# Published there:
#   {figures}.
#
# The data, from COCO's official files, beside this one (docs/data.md):
#   {coco}
# What it costs, before anything is there: hones plan THIS.yaml --gpus 8 --memory 80 --tflops 300
# The same small, on a built-in model and pictures:
#   hones data shapes --source signs --to shapes
#   hones run THIS.yaml --set model={built_in} --set out=small --set top_k=5 --set steering.learning_rate=null \\
#     --set data="{{discovery: shapes/discovery.json, dev: shapes/dev.json, test: shapes/test.json}}" \\
#     --set limit="{{discovery: 24, dev: 24, test: 24}}"

model: {model}{wording}
out: runs/{name}
data: {{discovery: coco/discovery.json, dev: coco/dev.json, test: coco/test.json, images: train2014}}
tasks: [vqa, ocr, caption, retrieval]
limit: {{discovery: 5000, dev: 2000, test: 3000}}  # the paper: discovery 5,000 to 7,000
dtype: auto                 # ours: bfloat16 on a GPU
max_new_tokens: 24
candidates: 50              # one true caption among 49 others
seed: 3407

# 1, 2, 3: heads, neurons, masking
top_k: {critical}                   # of {heads} heads
ratio: 0.01                 # {neurons} neurons
positive_part: mean         # as released; the formula can also be read as `item`
draws: 5                    # ours: random neurons of the same layers are masked beside them
compare:
  methods: [ap, ma, ape]    # the paper's; ours, and worth adding: dvp, atp, random
  draws: 5                  # ours, of random methods
  curves: false             # ours when true: budgets from 0.1 % to 10 % too

# 4: steering, with the controls of the same budget
steering:
  methods: [hones, no-kl, rand-neuron, fixed-amp, grid-search]  # Base is always beside them
  epochs: 2
  batch_size: 4             # the release: 1 item, 4 accumulation steps
  learning_rate: 5.0e-4     # AdamW without weight decay
  final_learning_rate: 0.1  # cosine
  beta: 0.05                # of the divergence from the original model
  gamma: 1.0e-5             # of the mean squared scale
  clip: 1.0
  max_scale: 1.5
  seeds: [3407]
  # Another source, tested with the learned scales and never trained on. A source has the items of its own tasks
  # (GQA: vqa; TextVQA: ocr; Flickr30k: caption, retrieval), so each is one command more, after this run:
  #   hones steer --model {model} --task vqa --dev coco/dev.json --test coco/test.json \\
  #     --images train2014 --out runs/{name} --ood gqa/testdev_balanced_questions.json --ood-images gqa/images

# Neurons per layer, groups of the tasks' sets and their ablation, delta logit lens
analyze:
  draws: 3                  # ours: random groups beside them
  lens_items: 2             # ours
  cards: 8                  # ours
"""

WORDING = """
# The paper's words, USER: <image> PROMPT ASSISTANT: with line breaks between; the checkpoint's own template has a blank
# in place of the last. For models of type llava; another model refuses it: --set chat_template=null for its own words.
chat_template: {}"""


def check_paper(name: str) -> Published:
    """What the paper says of a model.

    Raises:
        HonesError: it has no such model.
    """
    if name not in PAPER:
        raise HonesError(f"--paper {name}", expected=f"one of the paper's models: {', '.join(PAPER)}")
    return PAPER[name]


def paper_config(name: str) -> str:
    """The configuration of the paper's run on a model, with remarks, as YAML.

    Raises:
        HonesError: it has no such model.
    """
    published, further = check_paper(name), " \\\n#   "
    wording = "" if published.chat_template is None else WORDING.format(published.chat_template)
    texts = {"wording": wording, "figures": "\n#   ".join(published.figures), "coco": further.join(COCO)}
    return TEXT.format(**vars(published) | texts)
