"""Every field of a run, with its unit, its default and what else it may be. A config file changes what it needs.

Override any field on the command line: `--config.objective.eta=0.05`. An unknown field is an error.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.fields import (
    above_zero,
    at_least,
    defaults_of,
    lengths,
    multiple_of,
    one_of,
    optional,
    places,
    share,
    some_of,
)
from regrpo_jax.records.types import ErrorType


def base_config() -> ConfigDict:
    """The defaults, locked: setting a field that is not here raises AttributeError with a suggestion."""
    return defaults_of(declared()).lock()


def stage_section(config: ConfigDict, stage: str) -> ConfigDict:
    """A training stage's own fields, and those that it shares with the others where it has none of its own."""
    own = config[stage].to_dict()
    optimizer = config.optimizer.to_dict() | own.pop("optimizer")
    return ConfigDict(optimizer | config.objective.to_dict() | own)


def declared() -> ConfigDict:
    """The fields, some with what they may be."""
    config = ConfigDict()
    config.seed = 0  # decides weights, data order, sampling and what the data engine plays
    config.stages = ("sft", "rl", "eval")  # run in this order, each resumes; see stages/table.py
    config.log_every = at_least(1, 10)  # updates between lines of metrics.jsonl
    # what shows metrics.jsonl: "tensorboard", "wandb:PROJECT", "mlflow:URI", "trackio:PROJECT"; see docs/metrics.md
    config.log_to = places("tensorboard", "wandb:PROJECT", "mlflow:URI", "trackio:PROJECT")
    config.compilation_cache = ""  # folder of compiled programs kept between runs; "" keeps none
    config.export_weights = False  # write full weights, adapter merged, to model/ after the last training stage
    config.mesh = ConfigDict({"model": at_least(1, 1)})  # devices that share one copy of the weights
    config.data = _data()
    config.model = _model()
    config.lora = _lora()
    config.optimizer = _optimizer()
    config.objective = _objective()
    config.sft = _sft()
    config.rl = _rl()
    config.preference = _preference()
    config.agent = _agent()
    config.online = _online()
    config.recovery = _recovery()
    config.player = _player()
    config.eval = _eval()
    config.suite = _suite()
    config.tools = _tools()
    config.baselines = _baselines()
    config.environment = _environment()
    config.engine = _engine()
    config.teacher = _teacher()
    # File or pattern of RoT records to audit; whether they are played again and compared.
    config.audit = ConfigDict({"rot": "", "replay": False})
    # Updates between checkpoints, and how many are kept of a stage.
    config.checkpoint = ConfigDict({"every": at_least(1, 200), "keep": at_least(1, 2)})
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    # of the data stage: "toolrepair", "suite", a JSON file of trajectories, or the folder of an evaluation run
    data.source = ""
    data.rot = ""  # RoT records (JSON array or JSONL, the authors' schema)
    data.clean = ""  # clean MAT / MM-Traj trajectories, likewise
    data.eval_rot = ""  # held-out RoT records of the eval stage; "" takes data.rot
    data.on_bad_record = one_of("skip", "fatal")  # "skip": name it and go on; "fatal": name it and stop
    # "paper": repairs follow the failed action and its observation; "release": they don't
    data.conditioning = one_of("paper", "release")
    data.train_end_of_turn = True  # train the token that closes a turn; the authors' release does not
    # tokens of a supervised example; a longer one is a bad record, nothing is ever cut
    data.max_length = at_least(1, 1024)
    data.prefix_buckets = lengths(256, 512, 1024)  # padded lengths of a group's prefix, in tokens
    data.branch_buckets = lengths(128, 256, 512)  # padded lengths of a branch, in tokens
    # an image is enlarged to as many pixels; the model's own minimum counts if larger
    data.min_pixels = at_least(1, 4 * 28 * 28)
    # an image is shrunk to as many pixels; the model's own maximum counts if smaller
    data.max_pixels = at_least(784, 512 * 28 * 28)
    # RoT records in play: "none" all, "linear" and "success-paced" the easiest first
    data.curriculum = one_of("none", "linear", "success-paced")
    data.curriculum_start = share(0.3)  # share of them in play at a stage's first update
    data.curriculum_full = share(0.5)  # "linear": share of the stage's updates after which all are in play
    # "success-paced": mean success of a window that brings the next tenth into play
    data.curriculum_success = share(0.8)
    data.curriculum_window = at_least(1, 20)  # "success-paced": measured updates of a window
    return data


def _model() -> ConfigDict:
    model = ConfigDict()
    model.path = ""  # local Hugging Face directory: Qwen2-VL, Qwen2.5-VL, Qwen2, Qwen2.5; "" is the tiny preset
    model.images = True  # tiny preset: with a vision tower
    model.vocab_size = 1000  # tiny preset: tokens of the BPE that is trained on the corpus
    model.hidden_size = multiple_of(32, 128)  # tiny preset
    model.num_layers = at_least(1, 4)  # tiny preset
    # "auto" is decided by the size of the model, see model_defaults.py; the run's config.json says how.
    model.dtype = one_of("auto", "float32", "bfloat16")  # what is computed in: "float32" or "bfloat16"
    # of weights that are frozen or exported; what is trained is float32 whatever this says
    model.param_dtype = one_of("auto", "float32", "bfloat16")
    # recomputed in the backward pass: "full" layers, "dots" all but products with weights, "none"
    model.remat = one_of("auto", "none", "dots", "full")
    # of whole sequences: "xla", "cudnn" (GPU), "splash" (TPU); "auto" takes the device's best
    model.attention = one_of("auto", "xla", "cudnn", "splash")
    # frozen kernels under an adapter: "int8", or "nf4" (four bits, as QLoRA has them)
    model.quantize = one_of("none", "int8", "nf4")
    model.logprob_chunk = at_least(0, 0)  # tokens that meet the vocabulary at once; 0 makes it about 16 million logits
    return model


def _lora() -> ConfigDict:
    lora = ConfigDict()
    lora.path = ""  # adapter in PEFT's format to start from, which decides ranks and targets; "" starts a fresh one
    lora.rank = at_least(1, 8)  # inner width of the adapter
    lora.alpha = above_zero(16.0)  # scale is alpha / rank
    # share of an adapter's inputs that training sets to zero; the release took 0.05
    lora.dropout = share(0.0, below=True)
    # decoder projections that get one
    lora.targets = some_of(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    )
    lora.last_layers = at_least(0, 0)  # of the decoder, those that learn; 0 for all
    lora.vision_rank = at_least(0, 0)  # inner width in the vision tower; 0 leaves the tower frozen
    lora.vision_alpha = above_zero(16.0)  # scale there is vision_alpha / vision_rank
    # projections of the tower's blocks that get one
    lora.vision_targets = some_of(("qkv", "proj"), ("qkv", "proj", "fc1", "fc2", "gate_proj", "up_proj", "down_proj"))
    return lora


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()  # AdamW, of every stage that trains
    optimizer.microbatches = at_least(1, 1)  # a batch is visited in this many parts (gradient accumulation)
    optimizer.warmup_steps = at_least(0, 20)  # updates of linear warm-up, then a cosine
    optimizer.final_learning_rate_share = share(0.1)  # of the peak, at a stage's last update
    optimizer.weight_decay = at_least(0, 0.0)
    optimizer.beta2 = share(0.98)  # decay of the second moments
    optimizer.clip_norm = above_zero(1.0)  # largest global norm of the gradient
    return optimizer


def _objective() -> ConfigDict:
    objective = ConfigDict()  # of rl and online: reward, advantages, and the estimator of the KL
    objective.lambda_exec = at_least(0, 1.0)  # weight of success in the reward
    objective.eta = at_least(0, 0.1)  # price of 100 reflection tokens, in units of reward
    objective.lambda_val = at_least(0, 0.0)  # weight of V: the verifier's value of a record; of an action that is right
    objective.kl_estimator = one_of("k3", "k1", "k2", "k3_release")  # see core/kl.py; the release trains with k1
    objective.baseline = one_of("mean", "leave_one_out")  # of a group, or a step
    objective.advantage_clip = above_zero(float, optional=True)  # bound on |A|; None for no bound
    objective.zero_variance = one_of("skip", "keep_kl")  # what has no variance: skip it, or hold it near the reference
    return objective


def _training(steps: int, *, learning_rate: float) -> ConfigDict:
    stage = ConfigDict()
    stage.steps = at_least(0, steps)  # updates
    stage.learning_rate = above_zero(learning_rate)  # peak
    stage.optimizer = ConfigDict()  # a config file may set some of config.optimizer's for this stage alone
    return stage


def _sft() -> ConfigDict:
    sft = _training(1000, learning_rate=2e-3)
    sft.trainable = one_of("auto", "full", "lora")  # "full" weights or "lora" adapter; "auto" as in model
    sft.clean_ratio = share(0.5)  # share of clean examples; the rest are RoT
    sft.batch_rows = at_least(1, 16)  # packed rows of an update
    sft.row_length = at_least(2, 512)  # tokens of a packed row
    # image patches of a packed row, a multiple of those of an image token (4 in all Qwen2-VL)
    sft.row_patches = at_least(0, 128)
    return sft


def _rl() -> ConfigDict:
    rl = _training(200, learning_rate=2e-4)
    rl.trainable = one_of("lora", "full")  # "lora": exported to adapter/; "full" trains all weights
    rl.groups_per_batch = at_least(1, 8)  # contrastive groups of an update, five branches each
    rl.beta = at_least(0, 0.04)  # weight of the KL to the reference, which is the policy after the warm start
    rl.normalize_advantages = False  # divide by the group's standard deviation
    rl.two_stream_alpha = optional(float)  # weight of a separate verifier stream; None for one stream
    rl.length_normalize = False  # mean instead of sum of a branch's token log-probs
    return rl


def _preference() -> ConfigDict:
    preference = _training(200, learning_rate=2e-4)
    preference.trainable = one_of("lora", "full")  # "lora": exported to adapter/; "full" trains all weights
    preference.pairs_per_batch = at_least(1, 16)  # (corrected, failed) actions of an update
    preference.beta = above_zero(0.1)  # how dearly the distance from the policy before the stage is paid for
    return preference


def _agent() -> ConfigDict:
    agent = ConfigDict()
    # a reflection is opened after: a "failure"; failures and low confidence, "paper"; "never"
    agent.gate = one_of("failure", "paper", "never")
    # "pre" also holds an action of low confidence back and reflects before it runs
    agent.timing = one_of("post", "pre")
    agent.retries = at_least(0, 1)  # failed attempts of a step that are allowed, as in the paper's local trajectory
    agent.max_steps = at_least(1, 8)  # actions of an episode
    agent.turn_tokens = at_least(1, 96)  # sampled in one turn, at most
    agent.episode_tokens = at_least(1, 384)  # sampled in an episode, at most
    return agent


def _online() -> ConfigDict:
    online = _training(40, learning_rate=2e-4)
    online.trainable = one_of("auto", "full", "lora")  # "full" weights or "lora" adapter; "auto" as in model
    # "regrpo" reflects after failures; "grpo" retries without; "none" trains nothing
    online.algorithm = one_of("regrpo", "grpo", "none")
    online.tasks = at_least(1, 16)  # groups of an update
    online.branches = at_least(2, 8)  # episodes of a group
    online.collect_seconds = above_zero(float, optional=True)  # of all actions of an update, then it stops; None: any
    online.refills = at_least(0, 0)  # further rounds that are played while too few groups have anything to prefer
    online.forced_failures = share(0.0)  # share of tasks that start after a failed first action; reported apart
    online.middle_states = share(0.0)  # share of the others that start in the middle of an episode of the update before
    online.near_misses = share(0.0)  # share that start after an action that failed there; both are reported apart
    # updates that the policy which plays lags behind, so that it can play meanwhile; 0: in turn
    online.staleness = at_least(0, 0)
    online.replay = ""  # workdir of another run whose rollouts the updates repeat; "" plays
    # whose success a token is paid for: that of its "step", or of the whole "episode"
    online.success = one_of("step", "episode")
    # of a step: its "own" outcome pays it, it is a "condition" if it failed, or "shared"
    online.first_attempt = one_of("own", "condition", "shared")
    online.beta = at_least(0, 0.01)  # weight of the KL to the policy before the stage
    online.normalize_advantages = True  # divide by the group's standard deviation ..
    # .. plus this; a group that differs in the price of reflections alone weighs little
    online.advantage_epsilon = above_zero(0.1)
    online.clip_low = above_zero(0.2)  # how far a ratio may fall below 1
    online.clip_high = above_zero(0.28)  # and rise above it
    online.weight_cap = above_zero(float, optional=True)  # largest importance weight of a stale rollout; None for none
    # what has a ratio of its own: a "token", or a whole "branch" (GSPO; wants small bounds)
    online.ratio_of = one_of("token", "branch")
    # the loss: by its "tokens", or by the "budget" of its branches' tokens (Dr. GRPO)
    online.divide_by = one_of("tokens", "budget")
    online.train_truncated = True  # episodes that ran out of tokens train too; if not, they are compared only (DAPO)
    online.epochs = at_least(1, 1)  # optimizer steps on a batch
    return online


def _recovery() -> ConfigDict:
    recovery = ConfigDict()
    recovery.tasks = at_least(1, 192)  # tasks of each split, of config.suite
    recovery.episodes = at_least(1, 2)  # of each task
    # "validation", "test": names in new combinations; "held_out": new tools and faults too
    recovery.splits = some_of(("test",), ("validation", "test", "held_out"))
    recovery.seed = at_least(0, 7)  # of tasks and sampling; the same for runs that are to be compared
    recovery.temperature = at_least(0, 1.0)  # of the sampling
    recovery.bare_control = False  # play all once more with a bare retry in place of reflections
    recovery.tasks_at_once = at_least(1, 64)  # tasks whose episodes are played together
    return recovery


def _player() -> ConfigDict:
    player = ConfigDict()
    player.base_url = ""  # an OpenAI-compatible server that plays, "http://localhost:8000/v1"; "" plays in this process
    player.model = ""  # its name there; config.model.path is the same model, needed for all but the stage recovery
    player.key_variable = ""  # environment variable that holds its key; "" for a server without one
    player.extended = True  # it takes what vLLM and SGLang add to the API; False for `transformers serve` and OpenAI
    player.timeout = above_zero(120.0)  # seconds of a request
    player.retries = at_least(0, 4)  # after a request that failed for a while
    player.concurrency = at_least(1, 16)  # requests at the same time
    return player


def _eval() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.records = at_least(1, 200)  # held-out records replayed, at most
    evaluation.batch = at_least(1, 50)  # episodes decoded at once
    evaluation.max_new_tokens = at_least(1, 192)  # sampled in one assistant turn, at most
    evaluation.temperature = at_least(0, 0.0)  # 0 is greedy
    evaluation.top_k = at_least(0, 0)  # tokens that are drawn from, the likeliest ones; 0 for all
    # share of the probability that is drawn from, the likeliest tokens; 1 for all
    evaluation.top_p = share(1.0, above=True)
    return evaluation


def _suite() -> ConfigDict:
    suite = ConfigDict()
    suite.name = "toolrepair"  # what is played: "toolrepair", "folder" (of path), or "package.module:make_suite"
    suite.path = ""  # folder: holds tasks.jsonl and its files, see docs/your_own_task.md
    suite.system = ""  # first turn: a text file with {tools} in it, or "release" for the authors' words; "" for ours
    suite.brief = False  # folder: tools are told in few words, and reflections are short, for policies that read little
    # toolrepair: "compact", short texts and cheap tools; "full", the toolbox's own tools
    suite.profile = one_of("compact", "full")
    suite.families = ()  # toolrepair: names of the families; () is all
    suite.difficulties = (1, 2, 3)  # toolrepair: in turn
    suite.surprises = share(0.6)  # toolrepair: share of tasks in which the natural first action fails
    return suite


def _tools() -> ConfigDict:
    tools = ConfigDict()  # of suites that have no tools of their own
    tools.builtin = ("all",)  # names of built-in tools, docs/tools.md has them; ("all",) takes all
    tools.user = ()  # "package.module:name" of typed functions, Tool classes or Tools
    tools.mcp = ()  # MCP servers, each "name=command with arguments" or "name=https://address"
    tools.gta_names = False  # GTA's names too
    tools.corpus = ""  # folder or .jsonl file that search looks through
    tools.vision = _endpoint()  # an OpenAI-compatible vision-language model, for visualizer and math_ocr
    tools.images = _endpoint()  # an OpenAI-compatible image model, for image_generator and text_to_image
    tools.search = _endpoint()  # a search engine in the place of the corpus
    return tools


def _endpoint() -> ConfigDict:
    return ConfigDict({"url": "", "model": "", "key_variable": ""})  # "" for none; its key's variable


def _baselines() -> ConfigDict:
    baselines = ConfigDict()
    baselines.policy = one_of("oracle", "never_repairs", "random")  # who plays: "oracle", "never_repairs", "random"
    # "train", "validation", "test", or "held_out": tools and faults that training lacks
    baselines.split = one_of("test", "train", "validation", "held_out")
    baselines.tasks = at_least(1, 270)  # tasks; config.seed decides which
    baselines.max_steps = at_least(1, 10)  # turns of an episode, at most
    baselines.viewer_episodes = at_least(0, 50)  # episodes that episodes.html shows, spread over the run
    return baselines


def _environment() -> ConfigDict:
    environment = ConfigDict()
    environment.workers = at_least(1, 2)  # sandboxed processes that play at the same time; results do not depend on it
    environment.wall_seconds = above_zero(10.0)  # of one action, then it is killed
    # Seconds in which no action ends, then episodes go on without the slow ones; None: all wait, a seed decides all.
    environment.patience = above_zero(float, optional=True)
    environment.allow_unisolated = False  # run actions also where they cannot be isolated, never as root
    return environment


def _engine() -> ConfigDict:
    engine = ConfigDict()
    engine.records = at_least(0, 2000)  # RoT records
    engine.clean = at_least(0, 0)  # clean trajectories, executed as well
    # episodes of an agent whose skills are right and whose decisions are not always
    engine.demonstrations = at_least(0, 0)
    # where they say what went wrong: in a "reflection" block, or in the "thought"
    engine.diagnosis = one_of("reflection", "thought")
    shares = {"GroundingDrift": 0.294, "ToolMismatch": 0.246, "ArgInvalid": 0.308, "InfoInsufficient": 0.152}
    engine.error_types = ConfigDict({str(kind): share(shares.get(kind, 0.0)) for kind in ErrorType})  # the paper's four
    # of the suite: "train", "validation", "test", "held_out"
    engine.split = one_of("train", "validation", "test", "held_out")
    engine.natural = share(0.5)  # share of failures that are the suite's own surprises, where a type has some
    engine.failures_only = False  # of a recorded run: only what the policy itself got wrong
    engine.proposer = one_of("rules", "teacher")  # who finds near misses: "rules", or "teacher" and rules
    # who writes reflections: "rules" need no network; "teacher" is config.teacher
    engine.annotator = one_of("rules", "teacher")
    engine.synthetic = False  # make observations up where tools or files are not here; into files of their own
    engine.attempts = at_least(1, 40)  # situations tried for a record, at most
    engine.shard_records = at_least(1, 1000)  # records of a file
    return engine


def _teacher() -> ConfigDict:
    teacher = ConfigDict()
    teacher.base_url = ""  # an OpenAI-compatible chat API, such as "http://localhost:8000/v1"
    teacher.model = ""  # its name there
    teacher.key_variable = ""  # environment variable that holds its key; "" for a server without one
    teacher.images = False  # show it the task's pictures
    teacher.timeout = above_zero(120.0)  # seconds of a request
    teacher.retries = at_least(0, 5)  # after a request that failed for a while
    teacher.repairs = at_least(0, 2)  # times that a wrong answer is sent back
    teacher.requests_per_minute = above_zero(60.0)
    teacher.max_concurrency = at_least(1, 4)  # requests at the same time
    teacher.most_requests = above_zero(int, optional=True)  # of the run, restarts included; None without limit
    teacher.most_dollars = above_zero(float, optional=True)  # likewise, at the prices below
    teacher.dollars_per_million_input_tokens = at_least(0, 0.0)
    teacher.dollars_per_million_output_tokens = at_least(0, 0.0)
    teacher.max_tokens = at_least(1, 1024)  # of an answer
    teacher.temperature = at_least(0, 0.0)
    return teacher
