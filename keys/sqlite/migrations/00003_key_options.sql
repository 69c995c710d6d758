-- What the owner of a key, or its administrator, has chosen for what is sealed
-- to it.

-- +goose Up

-- A JSON object: aead (gcm or ocb), oaep (of a certificate) and ml_kem (true or
-- false). Of a text that is no JSON, only the first CHECK says so.
ALTER TABLE keys ADD COLUMN options TEXT NOT NULL DEFAULT '{}'
  CONSTRAINT options_not_an_object         CHECK (json_valid(options) AND json_type(options) = 'object')
  CONSTRAINT aead_neither_gcm_nor_ocb      CHECK (CASE WHEN json_valid(options) AND json_type(options, '$.aead') IS NOT NULL
    THEN json_type(options, '$.aead') = 'text' AND json_extract(options, '$.aead') IN ('gcm', 'ocb') ELSE 1 END)
  CONSTRAINT oaep_neither_true_nor_false   CHECK (CASE WHEN json_valid(options) AND json_type(options, '$.oaep') IS NOT NULL
    THEN json_type(options, '$.oaep') IN ('true', 'false') ELSE 1 END)
  CONSTRAINT ml_kem_neither_true_nor_false CHECK (CASE WHEN json_valid(options) AND json_type(options, '$.ml_kem') IS NOT NULL
    THEN json_type(options, '$.ml_kem') IN ('true', 'false') ELSE 1 END);

-- +goose Down

ALTER TABLE keys DROP COLUMN options;
