-- Chords: who joined, who sends the body, when to look again. Places of members: 2^63 - 1 without an index.
--   A new chord is {id, size, body, shape, life}, a part {chord, id, place, value, grows, body, life}, bytes in base64.

-- Locks all chords that a batch of completions names, in an order that all callers keep.
CREATE OR REPLACE FUNCTION {schema}.lock_chords(p_batch jsonb) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_ids text[];
BEGIN
    SELECT array_agg(DISTINCT t.id) INTO v_ids FROM jsonb_array_elements(p_batch) AS c, LATERAL (
        SELECT value ->> 'id' AS id FROM jsonb_array_elements(c.value -> 'opens')
        UNION ALL SELECT value ->> 'chord' FROM jsonb_array_elements(c.value -> 'parts')
        UNION ALL SELECT c.value #>> '{closes,chord}' WHERE c.value ? 'closes'
    ) AS t;
    IF v_ids IS NOT NULL THEN
        PERFORM FROM {schema}.chord WHERE id = ANY (v_ids) ORDER BY id FOR UPDATE;
    END IF;
END $$;

-- Forgets members and body of a chord.
CREATE OR REPLACE FUNCTION {schema}.empty_chord(p_key bigint) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    DELETE FROM {schema}.part WHERE chord = p_key;
    DELETE FROM {schema}.chord_text WHERE chord = p_key;
    UPDATE {schema}.chord SET joined = 0, bare = true WHERE key = p_key;
END $$;

-- The row of a chord, locked; NULL when there is none, or its life time is over: then it is dropped.
CREATE OR REPLACE FUNCTION {schema}.find_chord(p_id text) RETURNS {schema}.chord LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE c {schema}.chord;
BEGIN
    SELECT * INTO c FROM {schema}.chord WHERE id = p_id FOR UPDATE;
    IF FOUND AND c.expires <= {schema}.moment() THEN
        PERFORM {schema}.empty_chord(c.key);
        DELETE FROM {schema}.chord WHERE key = c.key;
        RETURN NULL;
    END IF;
    RETURN c;
END $$;

-- The row of a chord, locked, and made when there is none.
CREATE OR REPLACE FUNCTION {schema}.make_chord(p_id text, p_life float8, p_wait float8) RETURNS {schema}.chord
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c {schema}.chord;
    v_now float8;
BEGIN
    LOOP
        c := {schema}.find_chord(p_id);
        IF c.key IS NOT NULL THEN
            RETURN c;
        END IF;
        v_now := {schema}.moment();
        INSERT INTO {schema}.chord (id, life, expires, look)
        VALUES (p_id, p_life, v_now + p_life, v_now + least(p_wait, p_life)) ON CONFLICT DO NOTHING RETURNING * INTO c;
        IF c.key IS NOT NULL THEN
            RETURN c;
        END IF;
    END LOOP;
END $$;

-- What its body is made of; an empty one leaves what is there.
CREATE OR REPLACE FUNCTION {schema}.add_text(p_key bigint, p_body bytea, p_shape bytea) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO {schema}.chord_text AS t (chord, body, shape) VALUES (p_key, p_body, p_shape)
    ON CONFLICT (chord) DO UPDATE SET
        body = CASE WHEN length(excluded.body) > 0 THEN excluded.body ELSE t.body END,
        shape = CASE WHEN length(excluded.shape) > 0 THEN excluded.shape ELSE t.shape END
$$;

-- Begins a chord; members that came before it was ever opened count. One that goes on goes on.
CREATE OR REPLACE FUNCTION {schema}.open_chord(p_new jsonb, p_wait float8) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c {schema}.chord;
    t {schema}.chord_text;
    v_body bytea := decode(p_new ->> 'body', 'base64');
    v_shape bytea := decode(p_new ->> 'shape', 'base64');
    v_life float8 := (p_new ->> 'life')::float8;
    v_now float8;
BEGIN
    c := {schema}.make_chord(p_new ->> 'id', v_life, p_wait);
    v_now := {schema}.moment();
    IF c.size = (p_new ->> 'size')::integer AND NOT c.done THEN
        SELECT * INTO t FROM {schema}.chord_text WHERE chord = c.key;
        IF (v_body = '' OR v_body = coalesce(t.body, '')) AND v_shape = coalesce(t.shape, '') THEN
            UPDATE {schema}.chord SET life = v_life, expires = v_now + v_life WHERE key = c.key;
            RETURN;
        END IF;
    END IF;
    IF c.size IS NOT NULL OR c.done THEN
        PERFORM {schema}.empty_chord(c.key);
        c.bare := true;
    END IF;
    UPDATE {schema}.chord SET size = (p_new ->> 'size')::integer, done = false, token = NULL, life = v_life,
        expires = v_now + v_life, look = v_now + least(p_wait, v_life), bare = c.bare AND v_body = '' WHERE key = c.key;
    PERFORM {schema}.add_text(c.key, v_body, v_shape);
END $$;

-- Adds members to their chords, each once.
CREATE OR REPLACE FUNCTION {schema}.join_parts(p_parts jsonb, p_wait float8) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c {schema}.chord;
    r record;
    v_count integer;
    v_grows integer;
BEGIN
    FOR r IN
        SELECT t.chord, bool_or(t.body <> '') AS bodied, (array_agg(t.body ORDER BY t.body = '', n))[1] AS body,
               (array_agg(t.life ORDER BY n DESC))[1] AS life, array_agg(t.place ORDER BY n) AS places,
               array_agg(t.id ORDER BY n) AS ids, array_agg(decode(t.value, 'base64') ORDER BY n) AS values,
               array_agg(t.grows ORDER BY n) AS grows, array_agg(t.body <> '' ORDER BY n) AS have_body
        FROM ROWS FROM (jsonb_to_recordset(p_parts) AS
            (chord text, id text, place bigint, value text, grows integer, body text, life float8)) WITH ORDINALITY
            AS t (chord, id, place, value, grows, body, life, n)
        GROUP BY t.chord ORDER BY t.chord
    LOOP
        c := {schema}.find_chord(r.chord);
        CONTINUE WHEN c.size IS NULL AND NOT coalesce(c.done, false) AND NOT r.bodied;
        IF c.key IS NULL THEN
            c := {schema}.make_chord(r.chord, r.life, p_wait);
        END IF;
        CONTINUE WHEN c.done;
        IF c.size IS NULL THEN
            c.life := r.life;
        END IF;
        WITH wanted AS MATERIALIZED (
            SELECT DISTINCT ON (t.place, t.id) t.place, t.id, t.value, t.grows
            FROM unnest(r.places, r.ids, r.values, r.grows, r.have_body) WITH ORDINALITY
                AS t (place, id, value, grows, has_body, n)
            WHERE c.size IS NOT NULL OR t.has_body
            ORDER BY t.place, t.id, t.n
        ), added AS (
            INSERT INTO {schema}.part (chord, place, id, value)
            SELECT c.key, w.place, w.id, w.value FROM wanted AS w ON CONFLICT DO NOTHING
            RETURNING place, id
        )
        SELECT count(*), coalesce(sum(w.grows), 0) INTO v_count, v_grows
        FROM added AS a JOIN wanted AS w ON w.place = a.place AND w.id = a.id;
        IF c.bare AND r.bodied THEN
            PERFORM {schema}.add_text(c.key, decode(r.body, 'base64'), '');
            c.bare := false;
        END IF;
        UPDATE {schema}.chord SET joined = joined + v_count, grown = grown + v_grows, bare = c.bare, life = c.life,
            expires = {schema}.moment() + c.life WHERE key = c.key;
    END LOOP;
END $$;

-- The same for the lists of several completions.
CREATE OR REPLACE FUNCTION {schema}.join_pending(p_lists jsonb[], p_wait float8) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.join_parts(jsonb_agg(m.part ORDER BY t.n, m.n), p_wait)
    FROM unnest(p_lists) WITH ORDINALITY AS t (list, n), jsonb_array_elements(t.list) WITH ORDINALITY AS m (part, n)
    HAVING count(*) > 0;
END $$;

-- The chord waits for so many members more. One that nobody knows is remembered for a day.
CREATE OR REPLACE FUNCTION {schema}.grow_chord(p_id text, p_by integer, p_wait float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c {schema}.chord;
BEGIN
    c := {schema}.make_chord(p_id, 86400, p_wait);
    UPDATE {schema}.chord SET grown = grown + p_by WHERE key = c.key;
END $$;

-- Takes the token of a complete chord, unless somebody else holds it; renews it when it is held already. p_claim and
-- p_message are what the token says if it is a delivery's.
CREATE OR REPLACE FUNCTION {schema}.take_chord(
    p_id text, p_token text, p_claim bigint, p_message bigint, p_wait float8
) RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c {schema}.chord;
    v_now float8;
    v_look float8;
BEGIN
    c := {schema}.find_chord(p_id);
    IF c.size IS NULL OR c.done OR c.joined < c.size + c.grown THEN
        RETURN false;
    END IF;
    v_now := {schema}.moment();
    IF c.token IS DISTINCT FROM p_token THEN
        IF c.token IS NOT NULL AND c.until > v_now AND NOT (c.leased AND NOT {schema}.is_leased(c.token)) THEN
            RETURN false;
        END IF;
        c.leased := false;
    END IF;
    c.leased := c.leased OR EXISTS (SELECT FROM {schema}.lease WHERE claim = p_claim AND id = p_message);
    v_look := least(v_now + p_wait, c.expires);
    UPDATE {schema}.chord SET token = p_token, leased = c.leased, until = v_now + p_wait, look = v_look WHERE key = c.key;
    RETURN true;
END $$;

-- Whether a delivery's token is held: "owner:claim:id".
CREATE OR REPLACE FUNCTION {schema}.is_leased(p_token text) RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_found text[] := regexp_match(p_token, ':(\d{1,18}):(\d{1,18})$');
BEGIN
    RETURN v_found IS NOT NULL AND EXISTS (
        SELECT FROM {schema}.lease WHERE claim = v_found[1]::bigint AND id = v_found[2]::bigint);
END $$;

-- Whether nobody else took the token meanwhile; its time does not matter then.
CREATE OR REPLACE FUNCTION {schema}.holds(p_id text, p_token text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE c {schema}.chord := {schema}.find_chord(p_id);
BEGIN
    RETURN c.token IS NOT NULL AND c.token = p_token;
END $$;

-- Forgets the members for the holder of the token, and refuses late ones for a while.
CREATE OR REPLACE FUNCTION {schema}.close_chord(p_id text, p_token text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c {schema}.chord := {schema}.find_chord(p_id);
    v_end float8 := {schema}.moment() + {chord_done};
BEGIN
    IF c.token IS NULL OR c.token <> p_token THEN
        RETURN false;
    END IF;
    PERFORM {schema}.empty_chord(c.key);
    UPDATE {schema}.chord SET size = NULL, grown = 0, done = true, token = NULL, life = {chord_done}, expires = v_end,
        look = v_end WHERE key = c.key;
    RETURN true;
END $$;

-- Adds members; the chords that are complete and whose token is taken.
CREATE OR REPLACE FUNCTION {schema}.join_all(p_parts jsonb, p_token text, p_claim bigint, p_message bigint, p_wait float8)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v_id text;
BEGIN
    PERFORM {schema}.join_parts(p_parts, p_wait);
    FOR v_id IN SELECT DISTINCT value ->> 'chord' FROM jsonb_array_elements(p_parts) ORDER BY 1 LOOP
        IF {schema}.take_chord(v_id, p_token, p_claim, p_message, p_wait) THEN
            RETURN NEXT v_id;
        END IF;
    END LOOP;
END $$;

-- Renews the token's time; false when the chord is not complete or the token does not hold it.
CREATE OR REPLACE FUNCTION {schema}.renew_chord(p_id text, p_token text, p_claim bigint, p_message bigint, p_wait float8)
RETURNS boolean LANGUAGE sql AS $$
    SELECT {schema}.holds(p_id, p_token) AND {schema}.take_chord(p_id, p_token, p_claim, p_message, p_wait)
$$;

-- The members of a chord, in their order; then, with n = 0, its body and its shape.
CREATE OR REPLACE FUNCTION {schema}.lent_chord(p_id text, p_token text)
RETURNS TABLE (n integer, value bytea, shape bytea) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE c {schema}.chord;
BEGIN
    SELECT * INTO c FROM {schema}.chord WHERE id = p_id AND token = p_token AND NOT done;
    IF FOUND THEN
        RETURN QUERY SELECT 1, p.value, NULL::bytea FROM {schema}.part AS p WHERE p.chord = c.key ORDER BY p.place, p.id;
        RETURN QUERY SELECT 0, coalesce(t.body, ''), coalesce(t.shape, '')
            FROM (VALUES (c.key)) AS k (key) LEFT JOIN {schema}.chord_text AS t ON t.chord = k.key;
    END IF;
END $$;

-- Whether there is a chord to look at.
CREATE OR REPLACE FUNCTION {schema}.chord_is_due() RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM {schema}.chord WHERE look <= {schema}.moment())
$$;

-- Looks at chords whose time for it has come, up to 500; those up to p_limit whose tokens are taken.
CREATE OR REPLACE FUNCTION {schema}.look_at_chords(p_token text, p_limit integer, p_wait float8) RETURNS SETOF text
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    r record;
    c {schema}.chord;
    v_taken integer := 0;
    v_now float8 := {schema}.moment();
BEGIN
    FOR r IN SELECT h.id FROM {schema}.chord AS h WHERE h.look <= v_now ORDER BY h.look LIMIT 500 FOR UPDATE SKIP LOCKED LOOP
        EXIT WHEN v_taken >= p_limit;
        c := {schema}.find_chord(r.id);
        CONTINUE WHEN c.key IS NULL;
        IF {schema}.take_chord(r.id, p_token, NULL, NULL, p_wait) THEN
            v_taken := v_taken + 1;
            RETURN NEXT r.id;
        ELSE
            UPDATE {schema}.chord SET look = least(c.expires, CASE
                WHEN c.joined >= c.size + c.grown AND NOT c.done AND c.until > v_now THEN c.until
                ELSE v_now + {chord_look} END) WHERE key = c.key;
        END IF;
    END LOOP;
END $$;

-- Drops chords whose life time is over, up to p_limit; returns how many.
CREATE OR REPLACE FUNCTION {schema}.sweep_chords(p_limit integer) RETURNS integer LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_count integer := 0;
    v_id text;
BEGIN
    FOR v_id IN SELECT id FROM {schema}.chord WHERE look <= {schema}.moment() AND expires <= {schema}.moment()
        ORDER BY look LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM {schema}.find_chord(v_id);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
