//! What has to be in the databases before anything is seeded: the services' unique indexes, and their tables. Services make
//! them; `--create-schema` does where no service has been started yet.

use super::spec::Content;

/// A unique index that a service owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Of which collection.
    pub collection: &'static str,
    /// Its keys, ascending.
    pub keys: &'static [&'static str],
    /// Who makes it.
    pub service: &'static str,
}

const INDEXES: [UniqueIndex; 4] = [
    UniqueIndex { collection: "users", keys: &["account"], service: "room-service" },
    UniqueIndex { collection: "subscriptions", keys: &["roomId", "u.account"], service: "room-service" },
    UniqueIndex { collection: "thread_rooms", keys: &["parentMessageId"], service: "message-worker" },
    UniqueIndex {
        collection: "thread_subscriptions",
        keys: &["threadRoomId", "userAccount"],
        service: "message-worker",
    },
];

/// The indexes without which this content must not be written: replies of one thread would scatter over several.
pub fn indexes(content: Content) -> &'static [UniqueIndex] {
    if content.has_messages() { &INDEXES } else { &INDEXES[..2] }
}

/// Columns that a table must have, with their types as `system_schema.columns` names them; key columns first.
pub type Columns = &'static [(&'static str, &'static str)];

/// A table of messages.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How many of its columns are the partition key.
    pub partition: usize,
    /// How many come after those in the key.
    pub clustering: usize,
    /// What seeding writes and verifying reads.
    pub columns: Columns,
}

const PARTICIPANT: &str = "frozen<\"Participant\">";

/// The tables that messages are seeded into.
pub const TABLES: [Table; 3] = [
    Table {
        name: "messages_by_room",
        partition: 2,
        clustering: 2,
        columns: &[
            ("room_id", "text"),
            ("bucket", "bigint"),
            ("created_at", "timestamp"),
            ("message_id", "text"),
            ("sender", PARTICIPANT),
            ("msg", "text"),
            ("site_id", "text"),
            ("updated_at", "timestamp"),
            ("thread_room_id", "text"),
            ("tcount", "int"),
            ("thread_last_msg_at", "timestamp"),
        ],
    },
    Table {
        name: "messages_by_id",
        partition: 1,
        clustering: 0,
        columns: &[
            ("message_id", "text"),
            ("room_id", "text"),
            ("created_at", "timestamp"),
            ("sender", PARTICIPANT),
            ("msg", "text"),
            ("site_id", "text"),
            ("updated_at", "timestamp"),
            ("thread_room_id", "text"),
            ("tcount", "int"),
            ("thread_last_msg_at", "timestamp"),
            ("thread_parent_id", "text"),
            ("thread_parent_created_at", "timestamp"),
        ],
    },
    Table {
        name: "thread_messages_by_thread",
        partition: 1,
        clustering: 2,
        columns: &[
            ("thread_room_id", "text"),
            ("created_at", "timestamp"),
            ("message_id", "text"),
            ("room_id", "text"),
            ("thread_parent_id", "text"),
            ("sender", PARTICIPANT),
            ("msg", "text"),
            ("site_id", "text"),
            ("updated_at", "timestamp"),
        ],
    },
];

/// The statements that make types and tables in a keyspace, where they are missing.
pub fn statements(keyspace: &str) -> Vec<String> {
    let types = [
        r#""Participant" (id text, eng_name text, company_name text, app_id text, app_name text, is_bot boolean, account text)"#,
        r#""Card" (template text, data blob)"#,
        r#""CardAction" (verb text, text text, card_id text, display_text text, hide_exec_log boolean, card_tmid text, data blob)"#,
        r#""QuotedParentMessage" (message_id text, room_id text, sender frozen<"Participant">, created_at timestamp, msg text, mentions set<frozen<"Participant">>, attachments list<blob>, message_link text, thread_parent_id text, thread_parent_created_at timestamp)"#,
        r#""EncMeta" (nonce blob)"#,
        "reaction_key (emoji text, user_account text)",
        "reactor_info (user_id text, eng_name text, chn_name text, account text, reacted_at timestamp)",
    ];
    let mut statements: Vec<String> =
        types.iter().map(|definition| format!("CREATE TYPE IF NOT EXISTS {keyspace}.{definition}")).collect();
    // What every table has beside its key.
    const EVERYWHERE: &str = r#"sender frozen<"Participant">, msg text, mentions set<frozen<"Participant">>, attachments list<blob>, card frozen<"Card">, card_action frozen<"CardAction">, tshow boolean, thread_parent_id text, quoted_parent_message frozen<"QuotedParentMessage">, visible_to text, type text, site_id text, reactions map<frozen<reaction_key>, frozen<reactor_info>>, deleted boolean, sys_msg_data blob, edited_at timestamp, updated_at timestamp, enc_payload blob, enc_meta frozen<"EncMeta">"#;
    const OF_PARENTS: &str =
        "tcount int, thread_last_msg_at timestamp, thread_parent_created_at timestamp, pinned_at timestamp";
    let table = |text: String| format!("CREATE TABLE IF NOT EXISTS {keyspace}.{text}");
    statements.push(table(format!(
        "messages_by_room (room_id text, bucket bigint, created_at timestamp, message_id text, thread_room_id text, \
         {EVERYWHERE}, {OF_PARENTS}, PRIMARY KEY ((room_id, bucket), created_at, message_id)) \
         WITH CLUSTERING ORDER BY (created_at DESC, message_id DESC) AND compaction = {{'class': \
         'TimeWindowCompactionStrategy', 'compaction_window_unit': 'HOURS', 'compaction_window_size': 72}}"
    )));
    statements.push(table(format!(
        "messages_by_id (message_id text PRIMARY KEY, room_id text, created_at timestamp, thread_room_id text, \
         pinned_by frozen<\"Participant\">, {EVERYWHERE}, {OF_PARENTS})"
    )));
    let descending = "WITH CLUSTERING ORDER BY";
    statements.push(table(format!(
        "thread_messages_by_thread (thread_room_id text, created_at timestamp, message_id text, room_id text, {EVERYWHERE}, \
         PRIMARY KEY ((thread_room_id), created_at, message_id)) {descending} (created_at DESC, message_id DESC)"
    )));
    // Nothing is seeded into it, and the services do not start without it.
    let pinned = EVERYWHERE.replace(" reactions map<frozen<reaction_key>, frozen<reactor_info>>,", "");
    statements.push(table(format!(
        "pinned_messages_by_room (room_id text, pinned_at timestamp, message_id text, created_at timestamp, thread_room_id \
         text, pinned_by frozen<\"Participant\">, {pinned}, PRIMARY KEY ((room_id), pinned_at, message_id)) {descending} \
         (pinned_at DESC, message_id DESC)"
    )));
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_messages_have_a_table_without_reactions() {
        let statements = statements("chat");
        let pinned = statements.iter().find(|text| text.contains("EXISTS chat.pinned_messages_by_room (")).unwrap();
        assert!(pinned.contains("visible_to text, type text, site_id text, deleted boolean"), "{pinned}");
        assert!(
            !pinned.contains("reaction") && pinned.contains("PRIMARY KEY ((room_id), pinned_at, message_id)"),
            "{pinned}"
        );
    }

    #[test]
    fn every_column_that_is_written_is_made() {
        let statements = statements("chat");
        for table in TABLES {
            let made = statements.iter().find(|text| text.contains(&format!("EXISTS chat.{} (", table.name))).unwrap();
            for (column, kind) in table.columns {
                assert!(made.contains(&format!("{column} {kind}")), "{} {column}", table.name);
            }
        }
    }
}
