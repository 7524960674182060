-- Rows of a batch, in their order: what came of each. It has no rights of its own: whoever calls it adds what they may.
-- A batch is a list of runs, each with the rows that one table gets: {"table": ..., "rows": [...]}.

CREATE FUNCTION chimera_treasury.insert_rows(batch jsonb) RETURNS TABLE (row_seq bigint, row_hash text)
LANGUAGE plpgsql AS $$
DECLARE
    run jsonb;
BEGIN
    FOR run IN SELECT value FROM jsonb_array_elements(batch) WITH ORDINALITY AS each (value, place) ORDER BY place LOOP
        CASE run ->> 'table'
        WHEN 'account' THEN
            RETURN QUERY INSERT INTO chimera_treasury.account (id, kind, currency, title)
            SELECT r.id, r.kind, r.currency, r.title
            FROM jsonb_populate_recordset(NULL::chimera_treasury.account, run -> 'rows') WITH ORDINALITY AS r
            ORDER BY r.ordinality RETURNING seq, hash::text;
        WHEN 'request' THEN
            RETURN QUERY INSERT INTO chimera_treasury.request (
                id, digest, debit, credit, amount, currency, category, requester, mission, reason, expires_at
            ) SELECT r.id, r.digest, r.debit, r.credit, r.amount, r.currency, r.category, r.requester, r.mission,
                r.reason, r.expires_at
            FROM jsonb_populate_recordset(NULL::chimera_treasury.request, run -> 'rows') WITH ORDINALITY AS r
            ORDER BY r.ordinality RETURNING seq, hash::text;
        WHEN 'decision' THEN
            RETURN QUERY INSERT INTO chimera_treasury.decision (request_id, verdict, key_id, payload, signature)
            SELECT r.request_id, r.verdict, r.key_id, r.payload, r.signature
            FROM jsonb_populate_recordset(NULL::chimera_treasury.decision, run -> 'rows') WITH ORDINALITY AS r
            ORDER BY r.ordinality RETURNING seq, hash::text;
        WHEN 'approval' THEN
            RETURN QUERY INSERT INTO chimera_treasury.approval (
                request_id, approver, verdict, expires_at, key_id, payload, signature
            ) SELECT r.request_id, r.approver, r.verdict, r.expires_at, r.key_id, r.payload, r.signature
            FROM jsonb_populate_recordset(NULL::chimera_treasury.approval, run -> 'rows') WITH ORDINALITY AS r
            ORDER BY r.ordinality RETURNING seq, hash::text;
        WHEN 'transfer' THEN
            RETURN QUERY INSERT INTO chimera_treasury.transfer (id, kind, request_id, amount, expires_at)
            SELECT r.id, r.kind, r.request_id, r.amount, r.expires_at
            FROM jsonb_populate_recordset(NULL::chimera_treasury.transfer, run -> 'rows') WITH ORDINALITY AS r
            ORDER BY r.ordinality RETURNING seq, hash::text;
        END CASE;
    END LOOP;
END $$;

-- The row that is there already, if it is the same in every column.
CREATE FUNCTION chimera_treasury.same_row(kind text, r jsonb) RETURNS TABLE (row_seq bigint, row_hash text)
LANGUAGE sql AS $$
    SELECT seq, hash FROM chimera_treasury.account AS t
    WHERE same_row.kind = 'account' AND id = r ->> 'id' AND to_jsonb(t) @> r
    UNION ALL
    SELECT seq, hash FROM chimera_treasury.request AS t
    WHERE same_row.kind = 'request' AND id = r ->> 'id' AND to_jsonb(t) @> r
    UNION ALL
    SELECT seq, hash FROM chimera_treasury.decision AS t
    WHERE same_row.kind = 'decision' AND request_id = r ->> 'request_id' AND to_jsonb(t) @> r
    UNION ALL
    SELECT seq, hash FROM chimera_treasury.approval AS t
    WHERE same_row.kind = 'approval' AND request_id = r ->> 'request_id' AND to_jsonb(t) @> r
    UNION ALL
    SELECT seq, hash FROM chimera_treasury.transfer AS t
    WHERE same_row.kind = 'transfer' AND id = r ->> 'id' AND to_jsonb(t) @> r
$$;

-- One row, which may be refused while others are written.
CREATE FUNCTION chimera_treasury.try_row(kind text, r jsonb) RETURNS TABLE (
    row_seq bigint, row_hash text, again boolean, reason text, detail text
) LANGUAGE plpgsql AS $$
DECLARE
    code text;
BEGIN
    again := false; reason := ''; detail := '';
    BEGIN
        SELECT made.row_seq, made.row_hash INTO row_seq, row_hash FROM chimera_treasury.insert_rows(
            jsonb_build_array(jsonb_build_object('table', kind, 'rows', jsonb_build_array(r)))) AS made;
    EXCEPTION WHEN SQLSTATE 'CH001' OR insufficient_privilege OR numeric_value_out_of_range THEN
        GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, reason = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
        IF code = '42501' THEN
            detail := reason; reason := 'forbidden';
        ELSIF code = '22003' THEN
            detail := 'sums of it would not fit into 64 bits'; reason := 'funds';
        ELSE
            reason := split_part(reason, ':', 1);
        END IF;
        SELECT same.row_seq, same.row_hash INTO row_seq, row_hash
        FROM chimera_treasury.same_row(kind, r - 'said') AS same WHERE reason = 'conflict';
        again := FOUND;
    END;
    RETURN NEXT;
END $$;

-- All rows at once, and one by one where any is refused. `said` of a transfer is the last word about its request whose
-- signature the writer has checked: a later one makes the whole batch fail with CH002, so that it is checked too.
CREATE FUNCTION chimera_treasury.write(batch jsonb) RETURNS TABLE (
    row_seq bigint, row_hash text, again boolean, reason text, detail text
) LANGUAGE plpgsql SET search_path = pg_catalog, chimera_treasury, pg_temp AS $$
DECLARE
    run jsonb;
    r jsonb;
    late text;
BEGIN
    BEGIN
        RETURN QUERY SELECT made.row_seq, made.row_hash, false, '', '' FROM chimera_treasury.insert_rows(batch) AS made;
    EXCEPTION WHEN SQLSTATE 'CH001' OR insufficient_privilege OR numeric_value_out_of_range THEN
        FOR run IN SELECT value FROM jsonb_array_elements(batch) WITH ORDINALITY AS each (value, place) ORDER BY place
        LOOP
            FOR r IN
                SELECT value FROM jsonb_array_elements(run -> 'rows') WITH ORDINALITY AS each (value, place)
                ORDER BY place
            LOOP
                RETURN QUERY SELECT * FROM chimera_treasury.try_row(run ->> 'table', r);
            END LOOP;
        END LOOP;
    END;
    SELECT moved ->> 'request_id' INTO late
    FROM jsonb_array_elements(batch) AS run_of, jsonb_array_elements(run_of -> 'rows') AS moved
    WHERE moved ? 'said' AND EXISTS (
        SELECT FROM chimera_treasury.decision AS word
        WHERE word.request_id = moved ->> 'request_id' AND word.seq > (moved ->> 'said')::bigint
        UNION ALL
        SELECT FROM chimera_treasury.approval AS word
        WHERE word.request_id = moved ->> 'request_id' AND word.seq > (moved ->> 'said')::bigint
    ) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'CH002', MESSAGE = 'more was said of ' || late;
    END IF;
END $$;

-- Every cap, and what of it is used now.
CREATE FUNCTION chimera_treasury.cap_uses() RETURNS TABLE (
    account text, currency text, period text, most bigint, used bigint
) LANGUAGE sql SET search_path = pg_catalog, chimera_treasury, pg_temp AS $$
    SELECT cap.name, cap.currency, cap.period, cap.most, (up.date).used - coalesce((
        SELECT sum(gone.amount) FROM chimera_treasury.open_pending AS gone JOIN chimera_treasury.spend USING (seq)
        WHERE gone.expires_at > 0 AND gone.expires_at <= clock.now AND spend.at >= (up.date).since
            AND spend.counts = 1 AND spend.currency = cap.currency AND cap.name IN ('*', spend.account)
    ), 0)::bigint
    FROM (SELECT greatest(chimera_treasury.now_us(), at) AS now FROM chimera_treasury.head) AS clock,
        chimera_treasury.used AS cap,
        LATERAL (SELECT chimera_treasury.caught_up(cap, clock.now) AS date) AS up
    WHERE cap.kind = 'cap' ORDER BY 1, 2, 3
$$;
