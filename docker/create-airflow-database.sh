#!/bin/sh
# Run once by the postgres image, on an empty volume: Airflow gets a database and a user of its own, so that whoever gets hold
# of Airflow's password does not have the customers.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set password="$AIRFLOW_DB_PASSWORD" --set ours="$POSTGRES_DB" <<'SQL'
create role airflow login password :'password';
create database airflow owner airflow;
revoke connect on database :"ours" from public;
SQL
