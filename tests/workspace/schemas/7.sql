CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);

-- Append-only and dense: the notification feed and the trail of every change of state.
CREATE TABLE events (
    seq     BIGINT NOT NULL,
    stamp   DOUBLE NOT NULL,
    subject VARCHAR NOT NULL,          -- 'job-7f3k...', 'use_case:NAME', 'dataset:NAME', 'model:NAME'
    type    VARCHAR NOT NULL,          -- 'job.running', 'use_case.created', 'alias.moved' ...
    data    VARCHAR NOT NULL
);

CREATE TABLE jobs (
    id          VARCHAR PRIMARY KEY,
    key         VARCHAR,               -- the caller's idempotency key
    fingerprint VARCHAR NOT NULL,      -- sha256 of kind and spec: the same key with another one is refused
    kind        VARCHAR NOT NULL,
    spec        VARCHAR NOT NULL,
    state       VARCHAR NOT NULL,
    attempt     INTEGER NOT NULL,      -- 0 before the first run
    priority    INTEGER NOT NULL,
    resources   VARCHAR NOT NULL,
    estimate    DOUBLE,                -- run time in seconds as planned at the call; NULL where nothing was known
    limits      VARCHAR NOT NULL,
    not_before  DOUBLE NOT NULL,
    parent      VARCHAR,               -- the composite that asked for it
    step        VARCHAR,
    use_case    VARCHAR,
    executor    VARCHAR NOT NULL,
    handle      VARCHAR,               -- what the executor needs to find the run again
    request     VARCHAR,               -- NULL, 'cancel', 'pause', 'hold' or 'stop': asked of a run that still lives
    request_at  DOUBLE,
    retries     INTEGER NOT NULL,      -- retries used up in this life of the job
    shrinks     INTEGER NOT NULL,      -- how many of the retries were for want of memory
    losses      INTEGER NOT NULL,      -- runs lost to a kill since there was last progress
    run_seconds DOUBLE NOT NULL,       -- of all attempts together, without queueing and pauses
    reason      VARCHAR,               -- why it is in this state, in a sentence
    result      VARCHAR,
    error       VARCHAR,               -- {class, message, recovery}
    created     DOUBLE NOT NULL,
    changed     DOUBLE NOT NULL,
    started     DOUBLE,                -- of the newest attempt
    ended       DOUBLE
);
-- What a job's plan resolved, once: every attempt works on the same data.
CREATE TABLE job_plans (job VARCHAR PRIMARY KEY, plan VARCHAR NOT NULL);
CREATE TABLE job_needs (job VARCHAR NOT NULL, needs VARCHAR NOT NULL);

-- Answers of calls that change something without a job, by the caller's idempotency key.
CREATE TABLE answers (
    key VARCHAR PRIMARY KEY, tool VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL, answer VARCHAR NOT NULL,
    stamp DOUBLE NOT NULL
);

CREATE TABLE use_cases (
    name VARCHAR NOT NULL, version INTEGER NOT NULL, spec VARCHAR NOT NULL, state VARCHAR NOT NULL,
    created DOUBLE NOT NULL, PRIMARY KEY (name, version)
);

CREATE TABLE dataset_versions (
    name VARCHAR NOT NULL, version INTEGER NOT NULL,
    id        VARCHAR NOT NULL,        -- sha256 of the rows' multiset hash
    lanes     BLOB NOT NULL,           -- the multiset hash itself: 1,024 x uint16, for cheap successors
    manifest  VARCHAR NOT NULL,        -- datasets.versions.Manifest
    parents   VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,        -- {op, ...parameters} that made it
    report    VARCHAR NOT NULL,
    job       VARCHAR,
    created   DOUBLE NOT NULL, PRIMARY KEY (name, version)
);

CREATE TABLE dataset_tags (
    name VARCHAR NOT NULL, tag VARCHAR NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (name, tag)
);

CREATE TABLE model_versions (
    name VARCHAR NOT NULL, version INTEGER NOT NULL,
    id      VARCHAR NOT NULL,          -- sha256 of the manifest of every file
    card    VARCHAR NOT NULL,          -- models.registry.Card
    job     VARCHAR,
    created DOUBLE NOT NULL, PRIMARY KEY (name, version)
);

CREATE TABLE evaluations (
    id VARCHAR PRIMARY KEY, use_case VARCHAR, dataset VARCHAR NOT NULL, models VARCHAR NOT NULL,
    report VARCHAR NOT NULL,           -- evaluation.report.Report
    job VARCHAR, created DOUBLE NOT NULL
);

CREATE TABLE decisions (
    id VARCHAR PRIMARY KEY, use_case VARCHAR NOT NULL, use_case_version INTEGER NOT NULL, evaluation VARCHAR NOT NULL,
    candidate VARCHAR NOT NULL, baseline VARCHAR NOT NULL, verdict VARCHAR NOT NULL, evidence VARCHAR NOT NULL,
    created DOUBLE NOT NULL
);

-- Rows that evaluations judged, equal ones once (evaluation/judged_rows.py), and who judged which. `facet`: '' are the
-- rows themselves with their references in `target`, `column:NAME` is what a column of answers said of them.
CREATE TABLE suites (id VARCHAR PRIMARY KEY, size BIGINT NOT NULL, packed BLOB NOT NULL);
CREATE TABLE judged_suites (
    evaluation VARCHAR NOT NULL, facet VARCHAR NOT NULL, suite VARCHAR NOT NULL, target VARCHAR,
    PRIMARY KEY (evaluation, facet)
);
-- Who was scored on them. `role`: candidate, baseline or incumbent.
CREATE TABLE judged_models (
    evaluation VARCHAR NOT NULL, model VARCHAR NOT NULL, role VARCHAR NOT NULL, PRIMARY KEY (evaluation, model)
);

-- The only mutable pointers. `generation` is what a compare-and-swap compares.
CREATE TABLE aliases (
    use_case VARCHAR NOT NULL, alias VARCHAR NOT NULL, model VARCHAR NOT NULL, generation BIGINT NOT NULL,
    changed DOUBLE NOT NULL,
    percent DOUBLE,                    -- of a canary: its share of the requests
    PRIMARY KEY (use_case, alias)
);

-- Each row carries the hash of the one before it: a removed or edited row breaks the chain.
CREATE TABLE audit (
    seq BIGINT NOT NULL, stamp DOUBLE NOT NULL, actor VARCHAR NOT NULL, action VARCHAR NOT NULL,
    use_case VARCHAR NOT NULL, before VARCHAR, after VARCHAR, evidence VARCHAR NOT NULL,
    previous_hash VARCHAR NOT NULL, hash VARCHAR NOT NULL
);

CREATE TABLE approvals (
    id VARCHAR PRIMARY KEY, action VARCHAR NOT NULL, arguments VARCHAR NOT NULL, evidence VARCHAR NOT NULL,
    hash VARCHAR NOT NULL, state VARCHAR NOT NULL, created DOUBLE NOT NULL, expires DOUBLE NOT NULL,
    decided_by VARCHAR, decided_at DOUBLE
);

-- Public halves of people's keys. Which are in force says the audit (governance/approval_keys.py); this is for reading.
CREATE TABLE approval_keys (
    fingerprint VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, kind VARCHAR NOT NULL, public VARCHAR NOT NULL,
    enrolled DOUBLE NOT NULL, revoked DOUBLE
);

-- What a person allowed to leave this machine: examples of a dataset, for a host, up to a sum since it was granted.
CREATE TABLE consents (
    dataset VARCHAR NOT NULL, host VARCHAR NOT NULL, usd_cap DOUBLE NOT NULL, granted DOUBLE NOT NULL, expires DOUBLE,
    granted_by VARCHAR NOT NULL, PRIMARY KEY (dataset, host)
);
-- What answers about a dataset cost at a host, by the job that asked.
CREATE TABLE spending (
    dataset VARCHAR NOT NULL, host VARCHAR NOT NULL, job VARCHAR NOT NULL, usd DOUBLE NOT NULL, stamp DOUBLE NOT NULL,
    PRIMARY KEY (dataset, host, job)
);

-- How often tools were called about a use case ('': about none), per hour since the epoch: names and numbers alone.
CREATE TABLE tool_calls (
    use_case VARCHAR NOT NULL, tool VARCHAR NOT NULL, hour BIGINT NOT NULL, calls BIGINT NOT NULL,
    PRIMARY KEY (use_case, tool, hour)
);
