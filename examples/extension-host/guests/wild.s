; Takes a lock, counts itself, and reads memory that is not its own.
        mov r1, delta
        call lock
        jslt r0, 0, out
        mov r1, delta
        mov r2, 0
        call lookup
        add r0, 1
        mov r3, r0
        mov r1, delta
        mov r2, 0
        call update
        mov r1, 0
        ldxdw r0, [r1+8]
out:    exit
