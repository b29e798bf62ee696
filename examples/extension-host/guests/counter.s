; Adds 1 to hits[0], 500 times, under the lock of hits. Returns how often that went well.
        mov r6, 500
        mov r7, 0
next:   mov r1, hits
        call lock
        jslt r0, 0, skip
        mov r1, hits
        mov r2, 0
        call lookup
        jslt r0, 0, free
        add r0, 1
        mov r3, r0
        mov r1, hits
        mov r2, 0
        call update
        jslt r0, 0, free
        add r7, 1
free:   mov r1, hits
        call unlock
skip:   sub r6, 1
        jeq r6, 0, done
        call again
        jne r0, 0, next
done:   mov r0, r7
        exit
