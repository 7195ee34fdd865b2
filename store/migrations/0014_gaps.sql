-- The ledger for people, its entries told apart by what has become of them. An entry that was closed and still misses
-- numbers will never have them.

CREATE VIEW gaps AS
    SELECT g.instrument_id, i.exchange, coalesce(i.symbol, i.instrument) AS symbol, i.instrument, g.epoch,
           g.from_sequence, g.to_sequence, g.from_time, g.to_time, g.cause, g.state,
           CASE WHEN g.cause = 'epoch' THEN 'epoch'
                WHEN g.state <> 'closed' THEN 'open'
                WHEN NOT isempty(g.remaining) THEN 'unrecoverable'
                WHEN g.reason = 'reordered' THEN 'reordered'
                ELSE 'filled' END AS outcome,
           g.reason, g.repaired,
           (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest(g.remaining) AS r) AS missing,
           g.remaining, g.opened, g.time, g.received
    FROM trade_gaps g JOIN instruments i ON i.id = g.instrument_id;
