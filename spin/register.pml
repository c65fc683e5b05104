// The register (src/cluster/paxos.c): 3 voters, 2 proposers with 2 ballots each (3 in all with the reader), 2 changes
// each; in register_read.pml one reader that promises nothing.
//
// Messages are sets that only grow: whatever was sent may be received late, twice, in any order, or never, so loss,
// delay and repetition need no further rules. A proposer may give up a ballot at any point and take its next one (that
// is a lost round, a restart, or the other's turn). A voter may lose its memory at any point; what it has flushed
// stays.
//
// A value has a number; the first is 0. Proposer p's change c is value 1 + 2p + c, made from the value that p knew to
// be chosen.
//
// Checked:
//   - one value a version is chosen, and it was made from the chosen one of the version before
//   - a change that ended with "conflict" is never chosen, before or after
//   - what the reader returns is chosen, and not older than what was chosen before it asked
// Mutants that must be caught: NOT_FLUSHED ACCEPT_LOWER NO_LOOK
#ifdef READER
#define BALLOTS 3
#else
#define BALLOTS 4
#endif
#define VALUES 5
#define NONE 255

byte promised[3], flushed[3], accepted[3], value[3];  // voters; ballot 0 is before all
byte asked = 0;                                       // bit b: PREPARE b was sent
byte over = 0;                                        // bit b: the proposer waits for promises of b no more
byte pushed[BALLOTS + 1];                             // value of ACCEPT b, plus one; 0: not sent
byte promises[BALLOTS + 1], accepts[BALLOTS + 1];     // masks of voters that answered
byte told[15];                                        // [3b+v]: ballot that v had accepted when it promised b
byte told_value[15];
byte version[VALUES], parent[VALUES];
byte chosen[VALUES] = NONE;                           // by version
byte refused = 0;                                     // bit: value
byte newest = 0;                                      // highest version chosen so far

#define MAJORITY(m) ((m) == 3 || (m) == 5 || (m) == 6 || (m) == 7)

inline note_chosen(x) {
    assert(chosen[version[x]] == NONE || chosen[version[x]] == x);
    assert(!(refused & (1 << x)));
    assert(version[x] == 0 || chosen[version[x] - 1] == parent[x]);
    chosen[version[x]] = x;
    if
    :: version[x] > newest -> newest = version[x]
    :: else
    fi
}

#ifdef NOT_FLUSHED
#define FLUSH(b)
#else
#define FLUSH(b) flushed[v] = b;
#endif
#ifdef ACCEPT_LOWER
#define TOO_LOW(b) false
#else
#define TOO_LOW(b) (b < promised[v])
#endif

#define ON_PREPARE(b)                                                                                          \
    :: atomic { ((asked & (1 << b)) && b > promised[v]) ->                                                     \
        promised[v] = b; FLUSH(b)                                                                              \
        if                                                                                                     \
        :: (over & (1 << b)) /* nobody waits for it */                                                         \
        :: else -> promises[b] = promises[b] | (1 << v);                                                       \
            told[3 * b + v] = accepted[v];                                                                     \
            told_value[3 * b + v] = value[v]                                                                   \
        fi }
#define ON_ACCEPT(b)                                                                                           \
    :: atomic { (pushed[b] && !(accepts[b] & (1 << v)) && !TOO_LOW(b)) ->                                      \
        promised[v] = b;                                                                                       \
        flushed[v] = b;                                                                                        \
        accepted[v] = b;                                                                                       \
        value[v] = pushed[b] - 1;                                                                              \
        accepts[b] = accepts[b] | (1 << v);                                                                    \
        if :: MAJORITY(accepts[b]) -> note_chosen(value[v]) :: else fi }

proctype voter(byte v) {
end:
    do
    ON_PREPARE(1) ON_PREPARE(2) ON_PREPARE(3)
    ON_ACCEPT(1) ON_ACCEPT(2) ON_ACCEPT(3)
#if BALLOTS > 3
    ON_PREPARE(4)
    ON_ACCEPT(4)
#endif
#ifdef NOT_FLUSHED
    :: atomic { promised[v] != flushed[v] -> promised[v] = flushed[v] } // power is lost: what was not flushed is gone
#endif
    od
}

inline forget_promises() { // they are of no use any more: fewer states
    over = over | (1 << b);
    promises[b] = 0;
    told[3 * b] = 0; told[3 * b + 1] = 0; told[3 * b + 2] = 0;
    told_value[3 * b] = 0; told_value[3 * b + 1] = 0; told_value[3 * b + 2] = 0
}

inline consider(v) {
    if
    :: (promises[b] & (1 << v)) && (!any || told[3 * b + v] > best) ->
        best = told[3 * b + v];
        found = told_value[3 * b + v];
        any = true
    :: else
    fi
}

proctype proposer(byte p) {
    byte b = p + 1, change = 0, mine, known = 0, found, best;
    bool any, proposed = false;
    do
    :: b > BALLOTS || change == 2 -> break
    :: else ->
        mine = 1 + 2 * p + change;
        atomic { asked = asked | (1 << b) };
        if
        :: true -> goto lost
        :: atomic { MAJORITY(promises[b]) ->
            any = false; best = 0; found = 0;
            consider(0); consider(1); consider(2);
            if
            :: found == known -> // ours goes next
                version[mine] = version[known] + 1;
                parent[mine] = known;
                found = mine;
                proposed = true
            :: else // perhaps ours of an earlier ballot: it is finished; or another's
            fi;
            pushed[b] = found + 1;
            any = false; best = 0;
            forget_promises()
           }
        fi;
        if
        :: true -> goto lost
        :: atomic { MAJORITY(accepts[b]) ->
            if
            :: found == mine -> change++; proposed = false
            :: found != mine && proposed && version[found] > version[known] + 1 ->
                change++; proposed = false           // nobody can tell: neither done nor refused
            :: else ->
                refused = refused | (1 << mine);
                assert(chosen[1] != mine && chosen[2] != mine && chosen[3] != mine && chosen[4] != mine);
                change++; proposed = false
            fi;
            known = found;
            b = b + 2; found = 0
           }
        fi;
        goto next;
lost:   atomic {
            forget_promises();
            b = b + 2; found = 0;
#ifdef NO_LOOK // an unknown outcome is called a refusal
            if
            :: proposed -> refused = refused | (1 << mine); change++; proposed = false
            :: else
            fi
#endif
        };
next:   skip
    od
}

#ifdef READER
// Asks without promising: two voters answer, at different times. Do they name one ballot, its value is returned; what
// the third says changes nothing about it.
inline first_answer(v) {
    atomic { x = v; seen = accepted[v]; got = value[v]; had = newest }
}

inline second_answer(v) {
    atomic { x != v ->
#ifdef READ_ONE
        seen = accepted[v];
#endif
        if
        :: seen == accepted[v] -> assert(chosen[version[got]] == got && version[got] >= had)
        :: else
        fi;
        x = 0; seen = 0; got = 0; had = 0
    }
}

proctype reader() {
    byte x, seen, got, had;
    if
    :: first_answer(0)
    :: first_answer(1)
    :: first_answer(2)
    fi;
    if
    :: second_answer(0)
    :: second_answer(1)
    :: second_answer(2)
    fi
}
#endif

init {
    atomic {
        chosen[0] = 0;
        run voter(0); run voter(1); run voter(2);
        run proposer(0); run proposer(1)
#ifdef READER
        ; run reader()
#endif
    }
}
