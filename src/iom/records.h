// The kinds of records in an IOM's trees. Value formats of the mirrored kinds: names_format.h; of the local kinds: row_format.h.
#pragma once
enum record_kind {
    // TREE_META (mirrored to the proxy's TREE_WARD)
    KIND_SYSTEM = 1,   // counters of this starter: next index, generation base
    KIND_CNODE = 2,    // id = handle, number 0: attributes, referential map (room for inline data)
    KIND_DIRENT = 3,   // id = directory's handle, number = 62-bit hash of the name << 2 | collision number (= readdir cookie)
    KIND_XATTR = 4,    // id = handle, number = hash of the name, collision and part
    KIND_SYMLINK = 5,  // id = handle, number = part
    KIND_SESSION = 6,  // id = session
    KIND_SLOT = 7,     // id = session, number = slot: last sequence and its reply
    KIND_INTENT = 8,   // id = intent (owner's handle-like id), number = role
    KIND_ORPHAN = 9,   // id = handle: no name left; data to be discarded once nobody has it open
    KIND_NOTBUILT = 10, // id = handle, number = segment
    // TREE_LOCAL
    KIND_CHUNK = 32,   // id = handle, number = segment: the physical map of FIG. 7: addresses, checksums, versions
    KIND_UPDATE = 33,  // id = handle, number = segment: an update not yet settled: the Parity_Update journal (B2)
    KIND_CNODE2 = 34,  // id = handle: secondary CNODE: referential map, count of truncates
    KIND_CUT = 35,     // id = handle, of a stand-in: an unprotected object was cut (its member does it at its return)
    KIND_DOUBT = 36,   // id = handle: its starter may have lost it with its memory, and is to be asked (row_doubt.c)
};
