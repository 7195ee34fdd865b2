-- How far each stream has been stored. A batch moves its cursors from the id it started at in its own
-- transaction, so that no entry is stored twice and none is left out.

CREATE TABLE cursors (
    namespace text NOT NULL,
    stream    text NOT NULL,
    id        text NOT NULL,
    entries   bigint NOT NULL,
    updated   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, stream)
) WITH (fillfactor = 50);
